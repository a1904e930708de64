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

// LockName is the file that stands in a directory while somebody writes there.
const LockName = "writer.lock"

// timing of locks.
type timing struct {
	beat  time.Duration // the holder writes its lock anew so often
	stale time.Duration // one that says the same for so long is nobody's
	own   time.Duration // the same for one of this very process, whose line has broken
	sure  time.Duration // how long after a takeover it is looked who has it
}

var defaultTiming = timing{beat: 3 * time.Second, stale: 30 * time.Second, own: 10 * time.Second, sure: time.Second}

// lock is a lock that is held.
type lock struct {
	fs    *FS
	name  string
	h     *sftp.File
	count int
	quit  chan struct{}
	done  sync.WaitGroup
}

// Lock implements dumpdir.FS. SFTP has no locks, so a file stands for one. It is made with O_EXCL; its holder
// writes another number into it every 3 seconds, over the channel over which all its writes go, and looks whether it
// still has it. One that does not change for 30 seconds, as seen by who wants it and so by no clock but one, is
// stale: its holder is dead, and its writes are over. Then it is replaced by rename, and a second later whoever finds himself in it has it. One
// of this very process, left by a connection that broke, is stale after 10 seconds. Lock does not wait for any of this: while the
// error matches dumpdir.ErrLocked, call it again every second or so.
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
			// Left behind, it would have to become stale.
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

// takeOver takes a lock that is stale. cause is why it could not be made.
func (l *lock) takeOver(cause error) error {
	text, err := l.read()
	if errors.Is(err, fs.ErrNotExist) {
		// Let go in this moment, or it cannot be made at all.
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
	mine := l.name + "." + l.fs.owner + ".tmp" // which the next writer removes
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

// staleNow notes what a lock says and reports whether it has been saying it for long.
func (f *FS) staleNow(name, text string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen, ok := f.locks[name]
	if !ok || seen.text != text {
		f.locks[name] = sighting{text: text, at: time.Now()}
		return false
	}
	limit := f.timing.stale
	if holder(text) == f.owner {
		limit = f.timing.own
	}
	return time.Since(seen.at) >= limit
}

// write writes the lock anew.
func (l *lock) write() error {
	l.count++
	text := fmt.Sprintf("%s %010d\n", l.fs.owner, l.count)
	_, err := l.h.WriteAt([]byte(text), 0)
	return l.fs.failed("lock", l.name, err)
}

// holder returns the owner that a lock names.
func holder(text string) string {
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
	case errors.Is(err, fs.ErrNotExist), err == nil && holder(text) != l.fs.owner:
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
