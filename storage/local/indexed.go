package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/index"
	"github.com/corehaul/corehaul/storage/index/sqlite"
)

const (
	indexName     = "index.db"
	indexLockName = "index.lock"
	damagedSuffix = ".damaged"
)

// errNoIndex means that there is no index and none can be made. Callers read the directories.
var errNoIndex = errors.New("no index")

// indexHandle is an open index and its file.
type indexHandle struct {
	index.Index
	file os.FileInfo
}

// indexHolder keeps the index open between calls.
type indexHolder struct {
	mu sync.Mutex
	ix *indexHandle
}

func (h *indexHolder) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ix == nil {
		return nil
	}
	ix := h.ix
	h.ix = nil
	return ix.Close()
}

func (h *indexHolder) current(ix *indexHandle) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ix == ix
}

func (s *Store) indexPath() string { return filepath.Join(s.dir, indexName) }

// withIndex runs fn, if not nil, with the index. It makes a new index if the old one is gone or cannot be used. The error
// matches errNoIndex if there is no index and none can be made.
func (s *Store) withIndex(ctx context.Context, fn func(*indexHandle) error) error {
	replace := false
	for try := 0; ; try++ {
		ix, err := s.openIndex(ctx, replace)
		if err != nil {
			return err
		}
		if fn == nil {
			return nil
		}
		err = fn(ix)
		stale := !s.ix.current(ix) // it was closed under fn, by a call that found it replaced
		unusable := errors.Is(err, index.ErrUnusable) && !s.opts.ReadOnly
		if err == nil || ctx.Err() != nil || try > 0 || !stale && !unusable {
			return err
		}
		replace = unusable && !stale
	}
}

// indexFailed warns of an index that cannot be read.
func (s *Store) indexFailed(err error) {
	if !errors.Is(err, errNoIndex) {
		s.opts.Log.Warn("the index cannot be read; reading lists from the dumps", "path", s.indexPath(), "error", err)
	}
}

// openIndex returns the index at indexPath. With replace, it makes a new index in place of a damaged one.
func (s *Store) openIndex(ctx context.Context, replace bool) (*indexHandle, error) {
	s.ix.mu.Lock()
	defer s.ix.mu.Unlock()
	if st, err := os.Stat(s.indexPath()); s.ix.ix != nil && !replace && err == nil && os.SameFile(st, s.ix.ix.file) {
		return s.ix.ix, nil
	} else if s.opts.ReadOnly && err != nil {
		return nil, errNoIndex
	}
	old := s.ix.ix
	if old != nil {
		s.ix.ix = nil
		if err := old.Close(); err != nil {
			s.opts.Log.Warn("closing the index", "error", err)
		}
	}
	ix, err := s.makeIndex(ctx, replace, old)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !s.opts.ReadOnly || errors.Is(err, index.ErrUnusable) { // who may only read has no rights to make one
			s.opts.Log.Warn("no index; reading lists from the dumps; 'corehaul reindex' makes a new one", "path", s.indexPath(), "error", err)
		}
		return nil, fmt.Errorf("%w: %w", errNoIndex, err)
	}
	s.ix.ix = ix
	return ix, nil
}

// makeIndex opens the index under its lock, and fills a new one.
func (s *Store) makeIndex(ctx context.Context, replace bool, old *indexHandle) (*indexHandle, error) {
	unlock, err := s.lockIndex()
	if err != nil {
		return nil, err
	}
	defer unlock()
	_, err = os.Lstat(s.indexPath())
	gone := errors.Is(err, os.ErrNotExist) // its other files would spoil a new index
	if (gone || replace && s.unchanged(old)) && !s.opts.ReadOnly {
		s.tellNewIndex(gone)
		if err := s.dropIndex(); err != nil {
			return nil, err
		}
	}
	h, err := s.openFilled(ctx)
	if errors.Is(err, index.ErrUnusable) && !s.opts.ReadOnly {
		s.opts.Log.Warn("the index cannot be used; moving it aside and making a new one from the dumps", "path", s.indexPath(), "aside", s.indexPath()+damagedSuffix, "error", err)
		if err := s.dropIndex(); err != nil {
			return nil, err
		}
		return s.openFilled(ctx)
	}
	return h, err
}

// tellNewIndex says why there is a new index. The first one of an empty store is nobody's matter.
func (s *Store) tellNewIndex(gone bool) {
	hosts, err := s.fs.ReadDir(s.dumps())
	switch {
	case gone && err == nil && len(hosts) == 0:
	case gone:
		s.opts.Log.Info("there is no index; making one from the dumps", "path", s.indexPath())
	default:
		s.opts.Log.Info("the index is damaged; making a new one from the dumps", "path", s.indexPath())
	}
}

func (s *Store) openFilled(ctx context.Context) (*indexHandle, error) {
	ix, err := sqlite.Open(ctx, s.indexPath())
	if err != nil {
		return nil, err
	}
	h, err := s.fillIndex(ctx, ix)
	if err != nil {
		return nil, errors.Join(err, ix.Close())
	}
	return h, nil
}

// unchanged reports whether the index at the path is still the damaged one. Another process may have replaced it.
func (s *Store) unchanged(old *indexHandle) bool {
	st, err := os.Stat(s.indexPath())
	return err == nil && (old == nil || os.SameFile(st, old.file))
}

func (s *Store) fillIndex(ctx context.Context, ix index.Index) (*indexHandle, error) {
	st, err := os.Stat(s.indexPath())
	if err != nil {
		return nil, err
	}
	built, err := ix.Built(ctx)
	if err != nil || built {
		return &indexHandle{ix, st}, err
	}
	if s.opts.ReadOnly {
		return nil, errNoIndex
	}
	read := time.Now()
	entries, _, err := s.scan(ctx)
	if err != nil {
		return nil, err
	}
	return &indexHandle{ix, st}, s.rebuild(ctx, ix, entries, read)
}

// rebuild fills the index with entries that were scanned from the time read on.
func (s *Store) rebuild(ctx context.Context, ix index.Index, entries []storage.Entry, read time.Time) error {
	for i := range entries {
		entries[i].Path = s.relative(entries[i].Path)
	}
	return ix.Rebuild(ctx, entries, read)
}

// dropIndex moves an unusable index to index.db.damaged, and replaces the file there.
func (s *Store) dropIndex() error { return sqlite.PutAside(s.indexPath(), s.indexPath()+damagedSuffix) }

// discardIndex moves the index away in any state. Processes that have it open notice and make a new one.
func (s *Store) discardIndex() error {
	unlock, err := s.lockIndex()
	if err != nil {
		return err
	}
	defer unlock()
	return s.dropIndex()
}

// lockIndex waits for the lock that processes hold while they make or replace the index.
func (s *Store) lockIndex() (unlock func(), err error) {
	if s.opts.ReadOnly {
		return func() {}, nil
	}
	f, err := plainfile.OpenToExtend(filepath.Join(s.dir, indexLockName), 0o640)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		if err := f.Close(); err != nil {
			s.opts.Log.Warn("closing the lock of the index", "error", err)
		}
	}, nil
}

// updateIndex puts e, which was read from the time read on, into the index. It logs errors, because they must not fail a dump.
func (s *Store) updateIndex(ctx context.Context, e *storage.Entry, read time.Time) {
	e.Path = s.relative(e.Path)
	err := s.withIndex(ctx, func(ix *indexHandle) error { return ix.Put(ctx, e, read) })
	if err != nil && !errors.Is(err, errNoIndex) && ctx.Err() == nil {
		s.opts.Log.Warn("the index was not updated; moving it aside", "host", e.Host, "dump", e.ID, "error", err)
		if err := s.discardIndex(); err != nil { // an index that lacks a dump would hide it
			s.opts.Log.Error("the index lacks a dump and cannot be moved aside; run 'corehaul reindex'", "path", s.indexPath(), "error", err)
		}
	}
}

// relative returns a dump's path as the index keeps it, so that a data directory can be moved.
func (s *Store) relative(path string) string {
	if rel, err := filepath.Rel(s.dir, path); err == nil {
		return rel
	}
	return path
}
