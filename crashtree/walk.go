package crashtree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// Found is a dump in a tree.
type Found struct {
	Dir    string   // its directory
	Images []string // names of the files with its memory: none for a log alone, several for a --split set
	Log    string   // name of the file with the log of the system kernel; empty if there is none
	Others []string // names of other files to keep beside the dump
	// Alone means that the caller named the file, and not its directory.
	Alone bool

	root *os.Root // Dir, open until the Visitor returns; see place
}

func (f *Found) place() place { return place{f.Dir, f.root} }

// Path names the dump for people: its first file, or its directory.
func (f *Found) Path() string {
	if len(f.Images) > 0 {
		return filepath.Join(f.Dir, f.Images[0])
	}
	return f.Dir
}

// Visitor receives what Walk finds.
type Visitor struct {
	// Dump is called for each dump. Its error ends the walk.
	Dump func(f Found) error
	// Own is called for each dump directory that a sender or a receiver wrote, open as from until it returns. Its error ends the walk.
	Own func(from *os.Root, dir string) error
	// Skip is called for what looks like a dump and is not imported, or cannot be read.
	Skip func(path string, why error) error
	// Data, if set, is the data directory of the store, which is left out of trees. Files of clients may lie there that are not dumps yet.
	Data string
	// MaxDict bounds the memory of a decompressor that looks into a compressed file, in bytes; 0 means MaxDict.
	MaxDict int64
}

// Reasons for Visitor.Skip, beside errors of the file system.
var (
	errOtherSystem = errors.New("it is on another file system; name it to import it")
	errSuperseded  = errors.New("kdump did not finish it, and finished another file in the same directory")
	errEmptyBeside = errors.New("it is empty, and there is another dump in the same directory")
	errData        = errors.New("it is the data directory itself")
	errStored      = errors.New("it is in the data directory already")
	errApport      = errors.New("it is a report of apport, which is not read: the dump or its log is beside it in a directory with a date, " +
		"or 'apport-unpack' takes it out")
)

// IsLeftOut reports whether a reason for Visitor.Skip is no failure.
func IsLeftOut(why error) bool {
	return slices.ContainsFunc([]error{errOtherSystem, errSuperseded, errEmptyBeside, errData, errStored, errApport, plainfile.ErrNotRegular},
		func(e error) bool { return errors.Is(why, e) })
}

// Walk looks for dumps at each path: a file, or a directory with all that is below it on the same file system. Links are followed only
// if they are one of paths, also when one takes the place of a directory meanwhile. Directories come in the order of their names.
func Walk(ctx context.Context, paths []string, v Visitor) error {
	n := named{Visitor: v}
	defer n.leave()
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return err
		}
		st, err := os.Stat(path)
		switch {
		case err != nil:
			err = v.Skip(path, err)
		case st.IsDir():
			w := walker{ctx: ctx, Visitor: v}
			w.data, _ = os.Stat(v.Data) // without one, nothing is like it
			err = w.tree(path)
		default:
			err = n.file(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func deviceOf(st fs.FileInfo) uint64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Dev
	}
	return 0
}

// named visits the files that the caller named.
type named struct {
	Visitor
	last *directory // of the last file: a pattern of the shell names many files of one directory
	own  string     // the last dump directory
}

// leave closes the directory of the last file.
func (n *named) leave() {
	if n.last != nil && n.last.root != nil {
		_ = n.last.root.Close() // only read
	}
	n.last = nil
}

func (n *named) file(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return n.Skip(path, err)
	}
	if dir, _, own := dumpdir.AtPath(real); own {
		if dir == n.own {
			return nil
		}
		n.own = dir
		from, err := os.OpenRoot(dir)
		if err != nil {
			return n.Skip(dir, err)
		}
		defer func() { _ = from.Close() }() // only read
		return n.visitOwn(from, dir)
	}
	found, err := n.find(filepath.Dir(real), filepath.Base(real))
	if err != nil {
		return n.Skip(path, err)
	}
	return n.Dump(found)
}

func (n *named) find(dir, name string) (Found, error) {
	if n.last != nil && n.last.path == dir {
		return n.last.withFile(name)
	}
	n.leave()
	root, err := os.OpenRoot(dir)
	switch {
	case errors.Is(err, fs.ErrPermission): // the file itself may be readable
		n.last = &directory{place: place{path: dir}, maxDict: n.MaxDict}
		n.last.add(name)
	case err != nil:
		return Found{}, err
	default:
		d, err := n.readDir(place{dir, root}, 0)
		if err != nil {
			return Found{}, errors.Join(err, root.Close())
		}
		n.last = d
	}
	return n.last.withFile(name)
}

// visitOwn tells of a dump directory.
func (v *Visitor) visitOwn(from *os.Root, dir string) error {
	if isIn(dir, v.Data) {
		return v.Skip(dir, errStored)
	}
	return v.Own(from, dir)
}

// visit tells of all dumps in a directory.
func (v *Visitor) visit(d *directory) error {
	for _, f := range d.dumps() {
		if err := v.Dump(f); err != nil {
			return err
		}
	}
	d.skipApport()
	for _, s := range d.skipped {
		if err := v.Skip(filepath.Join(d.path, s.name), s.err); err != nil {
			return err
		}
	}
	return nil
}

// Look looks for dumps in one open directory, which people know as path, and not below it. It looks into no directory with more than most
// names.
func Look(root *os.Root, path string, most int, v Visitor) error {
	d, err := v.readDir(place{path, root}, most)
	if err != nil {
		return v.Skip(path, err)
	}
	return v.visit(d)
}

// walker walks one tree.
type walker struct {
	Visitor
	ctx  context.Context
	dev  uint64
	data fs.FileInfo // of Data; nil if there is none
}

// maxDepth bounds how deep a tree is walked. Each level takes a file descriptor.
const maxDepth = 200

// tree visits the directory at a path and those below it.
func (w *walker) tree(path string) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return w.Skip(path, err)
	}
	defer func() { _ = root.Close() }() // only read
	st, err := root.Stat(".")
	if err != nil {
		return w.Skip(path, err)
	}
	w.dev = deviceOf(st)
	return w.dir(place{path, root}, 0)
}

// dir visits a directory and those below it.
func (w *walker) dir(at place, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if dumpdir.IsDumpDir(at.root) {
		return w.visitOwn(at.root, at.path)
	}
	d, err := w.readDir(at, 0)
	if err != nil {
		return w.Skip(at.path, err)
	}
	if err := w.visit(d); err != nil {
		return err
	}
	for _, name := range DropAside(d.dirs, slices.Contains(d.others, indexName)) {
		if err := w.below(at, name, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// below visits a directory in another one. What is no directory was replaced meanwhile.
func (w *walker) below(at place, name string, depth int) error {
	path := filepath.Join(at.path, name)
	st, err := at.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir():
		return nil
	case err != nil:
		return w.Skip(path, &fs.PathError{Op: "lstat", Path: path, Err: underlying(err)})
	case deviceOf(st) != w.dev:
		return w.Skip(path, errOtherSystem)
	case w.data != nil && os.SameFile(st, w.data):
		return w.Skip(path, errData)
	case depth > maxDepth:
		return w.Skip(path, fmt.Errorf("it lies more than %d directories deep; name it to import it", maxDepth))
	}
	root, err := at.root.OpenRoot(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return w.Skip(path, &fs.PathError{Op: "open", Path: path, Err: underlying(err)})
	}
	defer func() { _ = root.Close() }() // only read
	// A Root follows a link that was put there meanwhile and leads to a place below it.
	if opened, err := root.Stat("."); err != nil || !os.SameFile(st, opened) {
		return w.Skip(path, fmt.Errorf("it was replaced while it was opened: %w", errors.Join(errWritten, err)))
	}
	return w.dir(place{path, root}, depth)
}

// indexName is the index of a data directory (storage/index).
const indexName = "index.db"

// asides are directories of a data directory (storage/local) with dumps that were removed, replaced, or are not there yet.
var asides = []string{"trash", "replaced", "damaged", "incoming"}

// DropAside returns the directories in a directory that may have dumps. Those in a data directory, which has an index, that have what is
// no dump of it are left out.
func DropAside(dirs []string, hasIndex bool) []string {
	if !hasIndex || !slices.Contains(dirs, dumpdir.DumpsName) {
		return dirs
	}
	return slices.DeleteFunc(slices.Clone(dirs), func(name string) bool { return slices.Contains(asides, name) })
}

// readDir reads a directory and looks into its files. It refuses one with more than most names, unless most is 0.
func (v *Visitor) readDir(at place, most int) (*directory, error) {
	entries, err := at.entries(most)
	if err != nil {
		return nil, err
	}
	d := &directory{place: at, maxDict: v.MaxDict}
	for _, e := range entries {
		mode := e.Type()
		switch {
		case mode.IsDir():
			d.dirs = append(d.dirs, e.Name())
		case mode.IsRegular() || dumpcopy.IsDump(e.Name()): // another file by this name is left out, with its kind
			d.add(e.Name())
		case dumpcopy.IsLog(e.Name()):
			d.skip(e.Name(), fmt.Errorf("%w (%v)", plainfile.ErrNotRegular, mode))
		}
	}
	return d, nil
}

// readNames returns the sorted entries of an open directory.
func readNames(d *os.File, path string, most int) ([]fs.DirEntry, error) {
	n := -1
	if most > 0 {
		n = most + 1
	}
	entries, err := d.ReadDir(n)
	if most > 0 && len(entries) > most {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it has more than %d names", most)}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, ignoreEOF(err)
}
