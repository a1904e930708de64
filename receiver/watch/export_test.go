package watch

import (
	"context"
	"time"
)

// MemoryName is the name of the file with what was taken.
const MemoryName = memoryName

// SetClock sets the clock of all directories.
func (w *Watcher) SetClock(clock func() time.Time) {
	for _, r := range w.roots {
		r.clock = clock
	}
}

// Look looks at all directories until nothing is left for another look.
func (w *Watcher) Look(ctx context.Context) {
	for _, r := range w.roots {
		for more := true; more; {
			_, more = r.look(ctx)
			r.idle()
		}
	}
}

// Hang makes the first directory look as if a call waited since a time, and notices that.
func (w *Watcher) Hang(since, now time.Time) {
	r := w.roots[0]
	r.busy("read", patience)
	r.mu.Lock()
	r.since = since
	r.mu.Unlock()
	r.noticeHang(now)
}

// SetNames sets how many names of a directory one look looks at.
func (w *Watcher) SetNames(n int) {
	for _, r := range w.roots {
		r.names = n
	}
}

// SetRemote makes all directories those of another machine.
func (w *Watcher) SetRemote() {
	for _, r := range w.roots {
		r.asks = func(string) (bool, error) { return true, nil }
	}
}
