package sftpfs

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

	"github.com/pkg/sftp"

	"github.com/corehaul/corehaul/dumpdir"
)

// LockName is the name of the lock file, which is in a directory while somebody writes there.
const LockName = "writer.lock"

// timing has the times of locks.
type timing struct {
	beat  time.Duration // between two heartbeats of the owner
	stale time.Duration // after which an unchanged lock has no owner
	own   time.Duration // the same for a lock of this process, whose line broke
	sure  time.Duration // between taking over a lock and checking who has it
}

var defaultTiming = timing{beat: 3 * time.Second, stale: 30 * time.Second, own: 10 * time.Second, sure: time.Second}

// lock is a held lock.
type lock struct {
	fs    *FS
	name  string
	h     *sftp.File
	count int
	quit  chan struct{}
	done  sync.WaitGroup
}

// Lock implements dumpdir.FS. SFTP has no locks, so a lock is a file that is created with O_EXCL. Every 3 seconds, its
// owner checks that it still has the lock and writes another number into it, over the same channel as its other writes.
//
// A lock is stale if the caller, by its own clock, sees no change for 30 seconds: then the owner is dead and its writes are over.
// A stale lock of this process, left by a broken connection, needs 10 seconds. The caller replaces a stale lock by
// rename. A second later, the owner that the file names has the lock. Lock does not wait for a lock to become stale: while
// its error matches dumpdir.ErrLocked, call it again about every second.
func (f *FS) Lock(dir string) (io.Closer, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	l := &lock{fs: f, name: path.Join(dir, LockName), quit: make(chan struct{})}
	h, err := f.c.OpenFile(l.name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	switch {
	case err == nil:
		l.h = h
		if err := l.write(); err != nil {
			// A lock file that is left behind blocks others until it is stale.
			return nil, errors.Join(err, h.Close(), wrap("unlock", l.name, f.c.Remove(l.name)))
		}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return nil, wrap("lock", l.name, err)
	default:
		if err := l.takeOver(err); err != nil {
			return nil, err
		}
	}
	l.done.Go(l.heartbeat)
	return l, nil
}

// takeOver takes over a stale lock. cause is the error of creating the lock file.
func (l *lock) takeOver(cause error) error {
	text, err := l.read()
	if errors.Is(err, fs.ErrNotExist) {
		// The lock was just released, or the file cannot be created at all.
		if _, serr := l.fs.c.Stat(path.Dir(l.name)); serr != nil {
			return wrap("lock", l.name, cause)
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
	if l.h, err = l.fs.c.OpenFile(mine, os.O_RDWR|os.O_CREATE|os.O_TRUNC); err != nil {
		return l.fs.failed("lock", mine, err)
	}
	if err := l.write(); err != nil {
		return errors.Join(err, l.h.Close())
	}
	if err := l.fs.c.PosixRename(mine, l.name); err != nil {
		return errors.Join(wrap("lock", l.name, err), l.h.Close())
	}
	time.Sleep(l.fs.timing.sure)
	if err := l.checkHeld(); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", dumpdir.ErrLocked, err), l.h.Close())
	}
	return nil
}

// staleNow notes the text of a lock file and reports whether it has been the same for long enough.
func (f *FS) staleNow(name, text string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen, ok := f.locks[name]
	if !ok || seen.text != text {
		f.locks[name] = sighting{text: text, at: time.Now()}
		return false
	}
	limit := f.timing.stale
	if ownerOf(text) == f.owner {
		limit = f.timing.own
	}
	return time.Since(seen.at) >= limit
}

// write writes owner and next number into the lock file.
func (l *lock) write() error {
	l.count++
	text := fmt.Sprintf("%s %010d\n", l.fs.owner, l.count)
	_, err := l.h.WriteAt([]byte(text), 0)
	return l.fs.failed("lock", l.name, err)
}

// ownerOf returns the owner that the text of a lock file names.
func ownerOf(text string) string {
	owner, _, _ := strings.Cut(text, " ")
	return owner
}

func (l *lock) read() (string, error) {
	h, err := l.fs.c.Open(l.name)
	if err != nil {
		return "", wrap("lock", l.name, err)
	}
	text, err := io.ReadAll(io.LimitReader(h, 1<<10))
	return string(text), errors.Join(wrap("lock", l.name, err), h.Close())
}

// checkHeld returns an error that matches dumpdir.ErrRevoked unless the lock file still names this owner.
func (l *lock) checkHeld() error {
	text, err := l.read()
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && ownerOf(text) != l.fs.owner:
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
		err = wrap("unlock", l.name, l.fs.c.Remove(l.name))
	}
	return errors.Join(err, l.h.Close())
}
