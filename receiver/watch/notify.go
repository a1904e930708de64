package watch

import (
	"encoding/binary"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxNotified bounds the directories that a notifier watches: the kernel gives each user some thousands (fs.inotify.max_user_watches).
const maxNotified = 4096

// notifyMask has what brings a dump nearer to its end: a file that was closed or got its name, a lock that is gone, a new directory.
const notifyMask = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_CREATE | unix.IN_DELETE | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW | unix.IN_EXCL_UNLINK

// notifier says that something changed in a directory, by inotify(7). It says neither what nor where: a look finds that. A nil notifier says nothing.
type notifier struct {
	f    *os.File
	fd   int
	due  chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	watch map[int32]struct{}
}

func newNotifier() (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	n := &notifier{f: os.NewFile(uintptr(fd), "inotify"), fd: fd, due: make(chan struct{}, 1), watch: map[int32]struct{}{}}
	n.done.Go(n.read)
	return n, nil
}

// add watches a directory. If that is not possible, looks from time to time have to do.
func (n *notifier) add(path string) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.watch) >= maxNotified {
		return
	}
	if wd, err := unix.InotifyAddWatch(n.fd, path, notifyMask); err == nil {
		n.watch[int32(wd)] = struct{}{}
	}
}

// wake returns a channel that has a value when something changed.
func (n *notifier) wake() <-chan struct{} {
	if n == nil {
		return nil
	}
	return n.due
}

// read reads events until the notifier is closed.
func (n *notifier) read() {
	buf := make([]byte, 64<<10)
	for {
		got, err := n.f.Read(buf)
		if err != nil {
			return
		}
		n.forget(buf[:got])
		select {
		case n.due <- struct{}{}:
		default:
		}
	}
}

// forget drops the watches that ended, because their directories are gone.
func (n *notifier) forget(events []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		wd, mask := int32(binary.NativeEndian.Uint32(events)), binary.NativeEndian.Uint32(events[4:])
		if mask&unix.IN_IGNORED != 0 {
			delete(n.watch, wd)
		}
		events = events[min(len(events), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(events[12:]))):]
	}
}

func (n *notifier) close() {
	_ = n.f.Close() // nothing is written
	n.done.Wait()
}
