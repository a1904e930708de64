package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/crashtree"
	"github.com/corehaul/corehaul/depotcopy"
	"github.com/corehaul/corehaul/dumpdir"
)

// Limits of one look. What is beyond them is looked at later: the next look at a large directory begins where this one ended.
const (
	maxDepth  = 6    // directories below the watched one
	maxNames  = 4096 // of one directory, unless a test sets another number
	maxBranch = 1024 // directories of one branch
	maxFound  = 1 << 14
)

// fullEvery is how often a look also goes into directories that are settled and seem unchanged.
const fullEvery = time.Hour

// found is a directory that may have a dump.
type found struct {
	rel    string // path below the watched directory
	branch string // what shares one limit: a directory of the watched one, or of its dumps/
	depotcopy.Contents
	record // what is noted once it is settled
}

// walk is one look at a watched directory.
type walk struct {
	*root
	ctx    context.Context
	top    *os.Root
	whole  bool // skip nothing
	dev    uint64
	branch map[string]int // directories of each branch so far
	found  []*found
	bad    map[string]string // what cannot be read, by path, and why
}

// run looks at all directories. The error is that of the watched directory itself, or of ctx.
func (w *walk) run() error {
	w.branch, w.bad = map[string]int{}, map[string]string{}
	st, err := w.top.Stat(".")
	if err != nil {
		return err
	}
	w.dev = deviceOf(st)
	return w.dir(w.top, ".", 0)
}

func deviceOf(st fs.FileInfo) uint64 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Dev
	}
	return 0
}

// branchOf returns the branch of a path. Hosts share nothing: each has its directory below dumps/ of a depot, or directories of its own name.
func branchOf(rel string) string {
	first, rest, _ := strings.Cut(rel, "/")
	if first != dumpdir.DumpsName && first != dumpdir.NextName {
		return first
	}
	second, _, _ := strings.Cut(rest, "/")
	return first + "/" + second
}

// dir looks at one directory and those below it.
func (w *walk) dir(at *os.Root, rel string, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	w.busy("read "+w.abs(rel), patience)
	st, err := at.Stat(".")
	if err != nil {
		return err
	}
	w.notify.add(w.abs(rel)) // before the names are read, so that no change is missed
	list, err := w.list(at, rel)
	if err != nil {
		return err
	}
	f := list.judge(rel, st.ModTime())
	switch {
	case len(list.files) == 0, w.settled(f), len(w.found) == maxFound:
	case list.all:
		w.found = append(w.found, f)
	default:
		w.bad[rel] = fmt.Sprintf("it has more than %d names; files in it are not looked at", w.names)
	}
	if f.Own || depth == maxDepth {
		return nil
	}
	for _, name := range list.dirs {
		if err := w.below(at, filepath.Join(rel, name), name, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// below looks at a directory in another one. An error of its own costs only itself.
func (w *walk) below(parent *os.Root, rel, name string, depth int) error {
	branch := branchOf(rel)
	if w.branch[branch]++; w.branch[branch] > maxBranch {
		return nil
	}
	err := w.enter(parent, rel, name, depth)
	switch {
	case w.ctx.Err() != nil:
		return w.ctx.Err()
	case errors.Is(err, fs.ErrNotExist), err == nil: // removed meanwhile
		return nil
	}
	w.bad[rel] = err.Error()
	return nil
}

// errOtherSystem: what is mounted below may be anything, and a hang of it would hide the rest.
var errOtherSystem = errors.New("it is on another file system; watch it by its own path")

func (w *walk) enter(parent *os.Root, rel, name string, depth int) error {
	st, err := parent.Lstat(name)
	if err != nil || !st.IsDir() {
		return err // replaced meanwhile
	}
	if deviceOf(st) != w.dev {
		return errOtherSystem
	}
	if !w.whole && w.mem.unchanged(w.abs(rel), st.ModTime()) {
		return nil
	}
	at, err := parent.OpenRoot(name)
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }() // only read
	return w.dir(at, rel, depth)
}

// listing is what a look sees of a directory.
type listing struct {
	all   bool // there are no other names
	files []fs.FileInfo
	dirs  []string
}

// list reads the names of a directory: of one with too many, the next part.
func (w *walk) list(at *os.Root, rel string) (*listing, error) {
	entries, all, err := w.window(at, rel)
	if err != nil {
		return nil, err
	}
	l := &listing{all: all}
	for _, e := range entries {
		switch mode := e.Type(); {
		case mode.IsDir() && !isAside(e.Name()):
			l.dirs = append(l.dirs, e.Name())
		case mode.IsRegular():
			st, err := at.Lstat(e.Name())
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			l.files = append(l.files, st)
		}
	}
	l.leaveOut()
	return l, nil
}

// leaveOut drops what another receiver's data directory has beside its dumps.
func (l *listing) leaveOut() {
	isIndex := func(st fs.FileInfo) bool { return st.Name() == "index.db" }
	l.dirs = crashtree.DropAside(l.dirs, slices.ContainsFunc(l.files, isIndex))
}

// isAside reports whether a directory is one that file systems and servers make for themselves: .snapshot would show old dumps again.
func isAside(name string) bool { return name[0] == '.' || name == "lost+found" }

// window returns the entries that this look looks at, sorted, and whether these are all.
func (w *walk) window(at *os.Root, rel string) (entries []fs.DirEntry, all bool, err error) {
	d, err := at.Open(".")
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = d.Close() }() // only read
	from, n := w.cursor[rel], 0
	for {
		some, err := d.ReadDir(1024)
		for _, e := range some {
			if n >= from && len(entries) < w.names {
				entries = append(entries, e)
			}
			n++
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err = errors.Join(err, w.ctx.Err()); err != nil {
			return nil, false, err
		}
	}
	delete(w.cursor, rel)
	if end := from + len(entries); end < n {
		w.cursor[rel] = end
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, from == 0 && len(entries) == n, nil
}

// judge says what the directory is by its names, and what state it is in.
func (l *listing) judge(rel string, changed time.Time) *found {
	f := &found{rel: rel, branch: branchOf(rel), Contents: depotcopy.ContentsOf(l.files)}
	f.Own = f.Own && l.all
	f.record = record{Signature: f.Contents.Signature, Changed: changed, Leaf: f.Own || len(l.dirs) == 0}
	return f
}
