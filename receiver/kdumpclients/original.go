package kdumpclients

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// unreadable seals a dump whose pages cannot be read. A complete file is kept beside it, because another program may read it.
func (j *job) unreadable(ctx context.Context, f *fileState, w *dumpdir.Writer, cause error) (dumpdir.Result, error) {
	if !ofDump(cause) {
		return dumpdir.Result{}, cause
	}
	if f.Status == fileBroken {
		return w.Seal(ctx, fmt.Sprintf("nothing of the dump can be read: %s (%v)", f.Reason, cause))
	}
	reason := "the dump cannot be read: " + cause.Error()
	name, err := j.keepImage(ctx, f, w)
	if err != nil && !errors.Is(err, errHoles) {
		return dumpdir.Result{}, err
	}
	if err == nil {
		reason += fmt.Sprintf("; it is kept as %s/%s", dumpdir.KeptDirName, name)
	}
	return w.Seal(ctx, reason)
}

// maxGaps is how much of a file may be holes if it is to be copied. In the copy, holes take space.
const maxGaps = 16 << 20

// errHoles says that a file is not kept because of its holes.
var errHoles = errors.New("it consists of holes")

// roomToKeep returns why a copy of a file cannot be kept.
func (j *job) roomToKeep(ctx context.Context, file *os.File) error {
	st, err := file.Stat()
	if err != nil {
		return err
	}
	if plainfile.Holes(st) > maxGaps {
		return errHoles
	}
	size := uint64(st.Size()) //nolint:gosec // not negative
	return j.h.account.ChargeCopy(ctx, size, size)
}

// keepImage keeps the file of a dump.
func (j *job) keepImage(ctx context.Context, f *fileState, w *dumpdir.Writer) (name string, err error) {
	kind := "image"
	if f.Image.InPlace {
		kind = "file"
	}
	file, err := plainfile.Open(j.h.path(f.Num, kind))
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }() // only read
	if err := j.roomToKeep(ctx, file); err != nil {
		return "", err
	}
	name = "vmcore"
	j.h.mu.Lock()
	for n, g := range j.dir.Files {
		if g.Num == f.Num {
			name = keptName(n)
		}
	}
	j.h.mu.Unlock()
	return name, w.Keep(name, file)
}

// otherPlan seals an unfinished import of another version of this program, which made another plan.
func (j *job) otherPlan(ctx context.Context, f *fileState, w *dumpdir.Writer) (dumpdir.Result, error) {
	kept, err := j.keepOriginal(ctx, f, w)
	if err != nil {
		return dumpdir.Result{}, err
	}
	return w.SealPartial(ctx, errOtherPlan.Error()+kept)
}

// keepOriginal keeps the client's file if the dump may differ from it. It returns where the file is, or why it is not kept.
func (j *job) keepOriginal(ctx context.Context, f *fileState, w *dumpdir.Writer) (string, error) {
	name, err := j.keepImage(ctx, f, w)
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "; there is no room to keep the file that the client sent", nil
	case errors.Is(err, errHoles):
		return "; the file that the client sent is not kept: " + err.Error(), nil
	case err != nil:
		return "", err
	}
	return fmt.Sprintf("; the file that the client sent is kept as %s/%s", dumpdir.KeptDirName, name), nil
}
