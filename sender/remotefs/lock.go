package remotefs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
)

// LockName is the name of the lock file, which is in a directory while somebody writes there.
const LockName = "writer.lock"

// maxLockLen is how much is read of a lock file, in bytes.
const maxLockLen = 1 << 10

// timing has the times of locks.
type timing struct {
	beat  time.Duration // between two heartbeats of the owner
	stale time.Duration // after which an unchanged lock has no owner
	own   time.Duration // the same for a lock of this process, whose line broke
	sure  time.Duration // between taking over a lock and checking who has it
	gap   time.Duration // the longest time between two looks at a lock that counts; callers look about every second
}

var defaultTiming = timing{
	beat: 3 * time.Second, stale: 30 * time.Second, own: 10 * time.Second, sure: time.Second, gap: 3 * time.Second,
}

// lock is a held lock.
type lock struct {
	fs    *FS
	name  string
	h     Handle
	count int
	quit  chan struct{}
	done  sync.WaitGroup
}

// Lock implements dumpdir.FS. The servers have no locks that end with their owner, so a lock is a file that is created
// with O_EXCL. Every 3 seconds, its owner checks that it still has the lock and writes another number into it, over the
// same connection as its other writes.
//
// A lock is stale if the caller, by its own clock, sees no change for 30 seconds: then the owner is dead and its writes are over.
// A stale lock of this process, left by a broken connection, needs 10 seconds. A time in which the server answered nothing
// does not count, because the owner could not write then either. The caller replaces a stale lock by
// rename. A second later, the owner that the file names has the lock. Lock does not wait for a lock to become stale: while
// its error matches dumpdir.ErrLocked, call it again about every second.
func (f *FS) Lock(dir string) (io.Closer, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	l := &lock{fs: f, name: path.Join(dir, LockName), quit: make(chan struct{})}
	h, _, err := f.server.Open(l.name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	switch {
	case err == nil:
		l.h = h
		if err := l.write(); err != nil {
			// A lock file that is left behind blocks others until it is stale.
			return nil, errors.Join(err, h.Close(), f.server.Remove(l.name))
		}
	case errors.Is(err, fs.ErrExist):
		if err := l.takeOver(err); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	l.done.Go(l.heartbeat)
	return l, nil
}

// takeOver takes over a stale lock. cause is the error of creating the lock file.
func (l *lock) takeOver(cause error) error {
	text, err := l.read()
	if errors.Is(err, fs.ErrNotExist) {
		// The lock was just released, or the file cannot be created at all.
		if ok, serr := l.fs.server.IsDir(path.Dir(l.name)); serr != nil || !ok {
			return cause
		}
		return fmt.Errorf("%s: %w (%w)", l.name, dumpdir.ErrLocked, cause)
	}
	if err != nil {
		return err
	}
	if !l.fs.staleNow(l.name, text) {
		return fmt.Errorf("%s: %w", l.name, dumpdir.ErrLocked)
	}
	mine := l.name + "." + l.fs.owner + ".tmp" // if left behind, the next writer removes it
	if l.h, _, err = l.fs.server.Open(mine, os.O_RDWR|os.O_CREATE|os.O_TRUNC); err != nil {
		return err
	}
	if err := l.write(); err != nil {
		return errors.Join(err, l.h.Close())
	}
	if err := l.fs.server.Rename(mine, l.name); err != nil {
		return errors.Join(err, l.h.Close())
	}
	time.Sleep(l.fs.timing.sure)
	if err := l.checkHeld(); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", dumpdir.ErrLocked, err), l.h.Close())
	}
	return nil
}

// sighting is the text of a lock file, when it was seen last, and for how long it has been the same.
type sighting struct {
	text   string
	at     time.Time
	silent time.Duration
}

// staleNow notes the text of a lock file and reports whether it has been the same for long enough.
func (f *FS) staleNow(name, text string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	seen, ok := f.locks[name]
	if !ok || seen.text != text {
		f.locks[name] = sighting{text: text, at: now}
		return false
	}
	seen.silent += min(now.Sub(seen.at), f.timing.gap)
	seen.at = now
	f.locks[name] = seen
	limit := f.timing.stale
	if ownerOf(text) == f.owner {
		limit = f.timing.own
	}
	return seen.silent >= limit
}

// write writes owner and next number into the lock file.
func (l *lock) write() error {
	l.count++
	text := fmt.Sprintf("%s %010d\n", l.fs.owner, l.count)
	_, err := l.h.WriteAt([]byte(text), 0)
	return err
}

// ownerOf returns the owner that the text of a lock file names. It returns nothing if a crash of the server left the file empty,
// or zeros in it: the text is not synced.
func ownerOf(text string) string {
	owner, _, _ := strings.Cut(strings.Trim(text, "\x00"), " ")
	return owner
}

func (l *lock) read() (string, error) {
	h, _, err := l.fs.server.Open(l.name, os.O_RDONLY)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.NewSectionReader(h, 0, maxLockLen))
	return string(text), errors.Join(err, h.Close())
}

// checkHeld returns an error that matches dumpdir.ErrRevoked if the lock file is gone or names another owner. If it names nobody,
// it is this owner's: others rename theirs over it.
func (l *lock) checkHeld() error {
	text, err := l.read()
	owner := ownerOf(text)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && owner != l.fs.owner && owner != "":
		return fmt.Errorf("%s: %w", l.name, dumpdir.ErrRevoked)
	}
	return err
}

// heartbeat rewrites the lock file to show that its owner is alive. If the lock is lost, it makes the file system fail.
func (l *lock) heartbeat() {
	tick := time.NewTicker(l.fs.timing.beat)
	defer tick.Stop()
	for {
		select {
		case <-l.quit:
			return
		case <-tick.C:
		}
		err := l.checkHeld()
		if err == nil {
			err = l.write()
		}
		if err != nil {
			l.fs.failAll(err)
			return
		}
	}
}

// failAll makes all further calls return err. The first error stays.
func (f *FS) failAll(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

// Close releases the lock.
func (l *lock) Close() error {
	close(l.quit)
	l.done.Wait()
	err := l.checkHeld()
	if err == nil {
		err = l.fs.server.Remove(l.name)
	}
	return errors.Join(err, l.h.Close())
}
