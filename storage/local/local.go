// Package local is the store on a local disk.
//
// Under its data directory it keeps
//
//	dumps/<host>/<UTC time>-<short id>/   one dump each, as dumpdir lays it out; the time is that of the crash, or of arrival
//	next/<host>/<id>/                     challengers, as dumpdir lays them out: see storage.Challengers
//	trash/                                dumps that are being deleted, and for an instant the file of CheckWritable
//	incoming/<host>/<id>/                 dumps that are being taken: see Take
//	replaced/                             complete, pinned or damaged dumps whose place another one has taken, for people to look at and delete
//	damaged/                              dumps that could not be resumed, for people to look at: see Resume
//	index.db, index.db-wal, index.db-shm  the index: a cache of the manifests
//	index.lock                            held while the index is made or replaced
//	state/                                reserved for what no dump can rebuild; neither made nor touched here
//
// The directories are the truth. If the index is missing, damaged, of a later version or deleted under a running
// process, the store moves it to index.db.damaged and makes a new one from the directories. A process that may not
// write an index reads lists from the directories. A deletion first renames the dump into trash. After a kill, the
// dump is either whole, or the next process that opens the store finishes the deletion.
//
// A Store is safe for concurrent use, and several processes may have the same directory open. A dump has one writer,
// which holds flock(2) on the directory of the dump. A process that writes side files, or moves a dump that may have
// some, holds flock(2) on dumps/ meanwhile. It locks the dump first and dumps/ second, or tries the dump's lock
// without waiting.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

const (
	nextName    = dumpdir.NextName
	trashName   = "trash"
	damagedName = "damaged"

	replacedName = "replaced"
)

// Store is the store under one data directory.
type Store struct {
	dir  string
	opts storage.OpenOptions
	fs   dumpdir.FS

	ix    indexHolder
	names knownNames

	storage.Hints

	misnamed sync.Once // warns of dumps in directories that are no host names

	mu     sync.Mutex
	active map[storage.Ref]*slot
}

var _ storage.Store = (*Store)(nil)

// slot is one dump's place for a writer of this process.
type slot struct {
	mu   sync.Mutex
	w    *dumpdir.Writer // the last writer of the dump; may be closed
	next *dumpdir.Writer // the last writer of the challenger
}

// idle reports whether nobody writes. mu is held.
func (sl *slot) idle() bool { return closed(sl.w) && closed(sl.next) }

func closed(w *dumpdir.Writer) bool { return w == nil || w.Closed() }

// Open opens the store under dir and makes the directory if it is missing. The working directory may change later. The
// error matches fs.ErrNotExist if there is no store and opts.ReadOnly or opts.Existing is set.
func Open(ctx context.Context, dir string, opts storage.OpenOptions) (*Store, error) {
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	dir, err := filepath.Abs(dir) // the index has paths below dir, and what it gives is joined to it
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, opts: opts, fs: dumpdir.OS{}, active: make(map[storage.Ref]*slot)}
	if opts.ReadOnly || opts.Existing {
		if _, err := os.Stat(s.dumps()); err != nil {
			return nil, fmt.Errorf("no store: %w", err)
		}
	}
	if opts.ReadOnly {
		return s, nil
	}
	if err := s.fs.MkdirAll(s.dumps()); err != nil {
		return nil, err
	}
	if _, err := s.emptyTrash(ctx); err != nil {
		opts.Log.Warn("trash was not emptied", "error", err)
	}
	if err := s.emptyIncoming(ctx); err != nil {
		opts.Log.Warn("dumps that a killed process was taking were not deleted", "error", err)
	}
	if err := s.promoteOrphans(ctx); err != nil {
		opts.Log.Warn("a challenger was not given the place of its dump", "error", err)
	}
	if err := s.withIndex(ctx, nil); err != nil && !errors.Is(err, errNoIndex) {
		return nil, err
	}
	return s, nil
}

func (s *Store) dumps() string { return filepath.Join(s.dir, dumpdir.DumpsName) }

// Close implements storage.Store.
func (s *Store) Close() error { return s.ix.close() }

// Space implements storage.Store.
func (s *Store) Space(context.Context) (storage.Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return storage.Space{}, &fs.PathError{Op: "statfs", Path: s.dir, Err: err}
	}
	size := uint64(st.Bsize)
	return storage.Space{Total: st.Blocks * size, Free: st.Bavail * size}, nil
}

// CheckWritable implements storage.Store. The file that it makes and removes lies in the trash: if the process is
// killed in between, the next one deletes it.
func (s *Store) CheckWritable(context.Context) error {
	dir := filepath.Join(s.dir, trashName)
	if err := s.fs.MkdirAll(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "probe-")
	if err != nil {
		return err
	}
	err = os.Remove(f.Name())
	if errors.Is(err, fs.ErrNotExist) { // another process has emptied the trash
		err = nil
	}
	return errors.Join(err, f.Close())
}

// longName returns the directory of a dump whose name from dumpdir.DirName is taken.
func longName(dir, id string) string { return strings.TrimSuffix(dir, id[:dumpdir.ShortID]) + id }

// locateToWrite is locate for a writer: if the dump is gone, its challenger takes its place. The slot is held.
func (s *Store) locateToWrite(ctx context.Context, ref storage.Ref) (string, error) {
	dir, err := s.locate(ref)
	if !errors.Is(err, storage.ErrNotFound) {
		return dir, err
	}
	return s.promoteOrphan(ctx, ref)
}

// locate finds the directory of a dump without the index. If neither journal nor manifest can be read, it goes by the
// name of the directory. The error matches ErrNotFound.
func (s *Store) locate(ref storage.Ref) (string, error) {
	if err := storage.CheckRef(ref); err != nil {
		return "", err
	}
	names, err := s.namesLike(ref.Host, ref.ID)
	if err != nil {
		return "", err
	}
	nameless := ""
	for _, name := range names {
		_, id, ok := strings.Cut(name, "-")
		if !ok || !strings.HasPrefix(ref.ID, id) {
			continue
		}
		dir := filepath.Join(s.dumps(), ref.Host, name)
		switch have, err := s.readID(dir); {
		case err == nil && have == ref.ID:
			return dir, nil
		case isDamage(err):
			nameless = dir
		}
	}
	if nameless != "" {
		return nameless, nil
	}
	return "", fmt.Errorf("%s: %w", ref, storage.ErrNotFound)
}

// readID returns the id of the dump in dir, from the journal or, if that is damaged or missing, from the manifest.
func (s *Store) readID(dir string) (string, error) {
	id, err := dumpdir.ReadID(s.fs, dir)
	if !isDamage(err) && !errors.Is(err, dumpdir.ErrNotExist) {
		return id, err
	}
	e, err := s.readEntry(dir)
	return e.ID, err
}

func isDamage(err error) bool {
	_, ok := errors.AsType[*dumpdir.DamageError](err)
	return ok
}

// slot returns the slot of a dump, and deletes the slots that are idle.
func (s *Store) slot(ref storage.Ref) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r, sl := range s.active {
		if r != ref && sl.mu.TryLock() {
			if sl.idle() {
				delete(s.active, r)
			}
			sl.mu.Unlock()
		}
	}
	sl := s.active[ref]
	if sl == nil {
		sl = &slot{}
		s.active[ref] = sl
	}
	return sl
}

// Create implements storage.Store.
func (s *Store) Create(ctx context.Context, meta dumpdir.Meta) (*dumpdir.Writer, error) {
	ref := storage.Ref{Host: meta.Host, ID: meta.ID}
	if err := storage.CheckRef(ref); err != nil {
		return nil, err
	}
	if meta.StartTime.IsZero() {
		meta.StartTime = time.Now()
	}
	sl := s.slot(ref)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if _, err := s.locateToWrite(ctx, ref); !errors.Is(err, storage.ErrNotFound) {
		if err == nil {
			err = fmt.Errorf("%s: %w", ref, storage.ErrExists)
		}
		return nil, err
	}
	dir := filepath.Join(s.dumps(), ref.Host, dumpdir.DirName(&meta))
	made := s.adding(ref.Host)
	w, err := dumpdir.Create(s.fs, dir, meta, s.writerOptions(dir, false))
	if errors.Is(err, dumpdir.ErrExist) { // another dump of the same second, whose id begins alike
		dir = longName(dir, meta.ID)
		w, err = dumpdir.Create(s.fs, dir, meta, s.writerOptions(dir, false))
	}
	if err != nil {
		return nil, storeError(err)
	}
	made(dir)
	sl.w = w
	return w, nil
}

// storeError makes errors of dumpdir match ErrBusy for a lock that is held, and ErrNotFound for a missing dump.
func storeError(err error) error {
	if errors.Is(err, dumpdir.ErrLocked) {
		return fmt.Errorf("%w: %w", storage.ErrBusy, err)
	}
	if errors.Is(err, dumpdir.ErrNotExist) {
		return fmt.Errorf("%w: %w", storage.ErrNotFound, err)
	}
	return err
}

// writerOptions returns the options of a writer in dir. Its manifest goes to the index before subscribers hear of it.
func (s *Store) writerOptions(dir string, reopen bool) dumpdir.Options {
	return dumpdir.Options{Reopen: reopen, Changed: func(m *dumpdir.Manifest) {
		// The writer has no context to give, and must not wait for the index longer than its busy timeout.
		read := time.Now()
		e := storage.Entry{Ref: storage.Ref{Host: m.Host, ID: m.ID}, Path: dir, Manifest: *m}
		e.ReadReport(s.fs)
		s.updateIndex(context.Background(), &e, read)
		s.tell(&e)
	}}
}

// tell gives subscribers the event that brought a dump to its present state.
func (s *Store) tell(e *storage.Entry) {
	switch m := &e.Manifest; {
	case m.State != dumpdir.StateArriving:
		s.Give(storage.Sealed, e.Ref)
	case m.Bytes.Log > 0:
		s.Give(storage.LogStored, e.Ref)
	}
}

// Resume implements storage.Store. It moves a dump whose journal is damaged beyond use to damaged/ and reports it as
// missing, so that the sender begins anew. A sealed dump stays as it is.
func (s *Store) Resume(ctx context.Context, ref storage.Ref, opts storage.ResumeOptions) (*dumpdir.Writer, error) {
	sl := s.slot(ref)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	dir, err := s.locateToWrite(ctx, ref)
	if err != nil {
		return nil, err
	}
	return s.resume(ref, dir, &sl.w, opts, s.writerOptions(dir, opts.Reopen))
}

// resume is Resume of the dump in dir, whose writer of this process is *w.
func (s *Store) resume(ref storage.Ref, dir string, w **dumpdir.Writer, opts storage.ResumeOptions, dopts dumpdir.Options) (*dumpdir.Writer, error) {
	got, err := takeOver(*w, opts)
	if err != nil {
		return nil, err
	}
	if got == nil {
		if got, err = dumpdir.Resume(s.fs, dir, dopts); err != nil {
			return nil, s.resumeFailed(ref, dir, err)
		}
	}
	*w = got
	return got, nil
}

// resumeFailed moves a dump to damaged/ if its journal is damaged beyond use or of a later version: a crashed machine
// has one chance to deliver, and a new dump is better than none. Then the error matches ErrNotFound.
func (s *Store) resumeFailed(ref storage.Ref, dir string, cause error) error {
	if !isDamage(cause) && !errors.Is(cause, dumpdir.ErrUnsupported) || dumpdir.IsSealedDamage(cause) {
		return storeError(cause)
	}
	return s.moveToDamaged(ref, dir, cause)
}

// moveToDamaged moves a dump to damaged/. On success the error matches ErrNotFound.
func (s *Store) moveToDamaged(ref storage.Ref, dir string, cause error) error {
	lock, err := s.fs.Lock(dir)
	if err != nil {
		return errors.Join(storeError(cause), err)
	}
	to, err := s.moveTo(damagedName, ref, dir)
	if err := errors.Join(err, lock.Close()); err != nil {
		return errors.Join(cause, err)
	}
	s.opts.Log.Error("a dump that cannot be resumed was moved aside", "host", ref.Host, "dump", ref.ID, "to", to, "error", cause)
	return fmt.Errorf("%w: %w", storage.ErrNotFound, cause)
}

// takeOver takes the dump from its writer. It returns nil if that is closed, or if the dump has to be resumed from disk
// to be reopened.
func takeOver(old *dumpdir.Writer, opts storage.ResumeOptions) (*dumpdir.Writer, error) {
	if closed(old) || !opts.Takeover {
		return nil, nil // nil is the answer: nothing to take over
	}
	w, err := old.Takeover()
	if errors.Is(err, dumpdir.ErrClosed) || errors.Is(err, dumpdir.ErrRevoked) {
		return nil, nil // closed meanwhile
	}
	if err != nil {
		return nil, storeError(err)
	}
	if res, sealed := w.Result(); sealed && opts.Reopen && res.State != dumpdir.StateComplete {
		return nil, w.Close()
	}
	return w, nil
}

// Open implements storage.Store.
func (s *Store) Open(_ context.Context, ref storage.Ref) (*dumpdir.Dump, error) {
	dir, err := s.locate(ref)
	if err != nil {
		return nil, err
	}
	d, err := dumpdir.Open(s.fs, dir)
	return d, storeError(err)
}
