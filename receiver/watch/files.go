package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/crashtree"
	"github.com/corehaul/corehaul/depotcopy"
)

// What comes of a directory with files of kdump, apart from dumps.
var (
	errEmpty = errors.New("there is no dump")
	errLater = errors.New("a file is still being written")
)

// remoteQuiet is how long files of another machine must not have changed by the clock of this one: crashtree compares the times of files with it,
// and the other machine's clock may be wrong.
const remoteQuiet = 5 * time.Minute

// remoteTypes are file systems whose files other machines write, by statfs(2).
var remoteTypes = []int64{unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC}

// isRemote reports whether other machines may write files at a path.
func isRemote(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	return slices.Contains(remoteTypes, int64(st.Type)), nil //nolint:unconvert // it has 32 bits on other machines
}

// takeFiles imports what kdump left in one directory. The error matches errEmpty if that is nothing, and errLater if something is still
// being written.
func (r *root) takeFiles(ctx context.Context, top *os.Root, f *found, t *track) (took bool, err error) {
	if r.remote && r.quietFor(t) < remoteQuiet {
		return false, errLater
	}
	dir := r.abs(f.rel)
	// A link is not a place of its own. One that is put there from here on leads to what the watched directory has.
	switch at, err := filepath.EvalSymlinks(dir); {
	case err != nil:
		return false, err
	case at != filepath.Join(r.resolved, f.rel):
		return false, fmt.Errorf("it is reached through a link, and lies in %s", at)
	}
	r.busy("look into "+dir, longPatience)
	from, err := top.OpenRoot(f.rel)
	if err != nil {
		return false, err
	}
	defer func() { _ = from.Close() }() // only read
	im := importing{root: r}
	err = crashtree.Look(from, dir, r.names, crashtree.Visitor{
		Dump:    func(d crashtree.Found) error { return im.dump(ctx, d) },
		MaxDict: maxDict,
		Skip: func(path string, why error) error {
			if !crashtree.IsLeftOut(why) {
				im.failed = append(im.failed, fmt.Errorf("%s: %w", filepath.Base(path), why))
			}
			return nil
		},
	})
	switch {
	case err != nil:
		return im.took, err
	case len(im.failed) > 0:
		return im.took, errors.Join(im.failed...)
	case im.later:
		return im.took, errLater
	case !im.any:
		return false, errEmpty
	}
	return im.took, nil
}

// importing is what became of the dumps of one directory.
type importing struct {
	*root
	any, took, later bool
	failed           []error
}

// dump imports one dump. The error is that of ctx.
func (im *importing) dump(ctx context.Context, d crashtree.Found) error {
	im.busy("import "+d.Path(), longPatience)
	out, err := im.files.Import(ctx, d)
	if err != nil {
		return err
	}
	im.any = true
	log := im.log.With("host", out.Host, "dump", out.ID, "path", out.Path)
	switch out.Result {
	case crashtree.Imported:
		im.took = true
		im.taken()
		im.mem.took(out.Ref, depotcopy.Standing{}, im.clock())
		log.Info("took a dump of kdump from a watched directory", "state", out.State, "reason", out.Reason, "not_kept", out.NotKept)
	case crashtree.Present:
		im.mem.took(out.Ref, depotcopy.Standing{}, im.clock())
	case crashtree.Later:
		im.later = true
	case crashtree.Failed:
		im.failed = append(im.failed, fmt.Errorf("%s: %w", filepath.Base(out.Path), out.Err))
	}
	return nil
}
