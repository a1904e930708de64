package watch

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/corehaul/corehaul/crashtree"
)

// root is one watched directory.
type root struct {
	*Config
	path   string
	mem    *memory
	log    *slog.Logger
	clock  func() time.Time
	asks   func(path string) (remote bool, err error)
	remote bool // other machines write here
	names  int  // of a directory that one look looks at
	files  crashtree.Importer
	tracks map[string]*track // of directories that are not settled, by their path below the watched one
	bad    map[string]string // paths that the last look could not read, and why
	cursor map[string]int    // where the next look at a large directory begins
	notify *notifier         // nil: inotify does not work
	lines  int               // of the log, about what the present look cannot take
	full   time.Time         // of the last look that skipped nothing
	// resolved is path without links, as of the last look.
	resolved string

	mu     sync.Mutex
	status Status
	doing  string    // what a call waits for; empty between looks
	since  time.Time // of doing
	allows time.Duration
	hangs  bool // the log says so
}

// maxDict bounds the memory of a decompressor, in bytes: as much as for the stream of a stock client.
const maxDict = 16 << 20

func newRoot(cfg *Config, mem *memory, path string) *root {
	r := &root{
		Config: cfg, path: path, mem: mem, log: cfg.Log.With("watch", path), clock: time.Now, asks: isRemote, names: maxNames,
		tracks: map[string]*track{}, cursor: map[string]int{}, status: Status{Path: path},
	}
	r.files = crashtree.Importer{
		Store: cfg.Store, Room: cfg.Room, Tool: cfg.Tool, Codec: cfg.Codec, Grace: cfg.Grace, Taken: mem.has,
		Scratch: cfg.Data, MaxDict: maxDict,
		Progress: func(path string, _, _ uint64) { r.busy("import "+path, longPatience) },
	}
	return r
}

// run looks at the directory until ctx is done.
func (r *root) run(ctx context.Context) {
	var err error
	if r.notify, err = newNotifier(); err != nil {
		r.log.Info("inotify does not work; looking at the directory from time to time", "every", pollEvery, "error", err)
	} else {
		defer r.notify.close()
	}
	for ctx.Err() == nil {
		begin := time.Now()
		walked, more := r.look(ctx)
		r.idle()
		if !more && !r.wait(ctx, begin, walked) {
			return
		}
	}
}

// wait waits until the next look is due, or ctx is done.
func (r *root) wait(ctx context.Context, begin time.Time, walked time.Duration) bool {
	least := time.NewTimer(time.Until(begin.Add(max(lookGap, walkShare*walked))))
	defer least.Stop()
	select {
	case <-least.C:
	case <-ctx.Done():
		return false
	}
	poll := time.NewTimer(time.Until(begin.Add(pollEvery)))
	defer poll.Stop()
	select {
	case <-poll.C:
	case <-r.notify.wake():
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// look looks at the directory once, and takes what it finds. It returns how long the walk took, and whether it left something for the next look.
func (r *root) look(ctx context.Context) (walked time.Duration, more bool) {
	begin := time.Now()
	r.busy("open "+r.path, patience)
	r.resolved = resolve(r.path)
	top, err := r.open()
	if err == nil {
		defer func() { _ = top.Close() }() // only read
		w := &walk{root: r, ctx: ctx, top: top, whole: r.clock().Sub(r.full) > fullEvery}
		if err = w.run(); err == nil {
			if w.whole {
				r.full = r.clock()
			}
			r.answers(nil)
			walked = time.Since(begin)
			return walked, r.takeAll(ctx, top, w)
		}
	}
	if ctx.Err() == nil {
		r.answers(err)
	}
	return time.Since(begin), false
}

// open opens the watched directory.
func (r *root) open() (*os.Root, error) {
	if err := r.checkOutside(r.resolved); err != nil {
		return nil, err
	}
	remote, err := r.asks(r.path)
	if err != nil {
		return nil, err
	}
	r.remote = remote
	return os.OpenRoot(r.path)
}

// answers notes whether the directory can be read, and logs a change.
func (r *root) answers(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.mu.Lock()
	was := r.status.Error
	r.status.Error = text
	r.mu.Unlock()
	switch text {
	case was:
	case "":
		r.log.Info("the watched directory can be read again")
	default:
		r.log.Warn("cannot read the watched directory; will try again", "error", err)
	}
}

// busy notes what the goroutine waits for, and how long that may take.
func (r *root) busy(what string, allows time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hangs {
		r.hangs = false
		r.log.Info("the watched directory answers again")
	}
	r.doing, r.since, r.allows = what, time.Now(), allows
}

func (r *root) idle() { r.busy("", 0) }

// noticeHang logs once that the goroutine waits for too long.
func (r *root) noticeHang(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.doing == "" || r.hangs || now.Sub(r.since) < r.allows {
		return
	}
	r.hangs = true
	r.log.Warn("the watched directory does not answer; its file system may hang", "at", r.doing, "for", now.Sub(r.since).Round(time.Second))
}

// now returns the status.
func (r *root) now() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.status
	if st.Error == "" && r.hangs {
		st.Error = "it does not answer: " + r.doing
	}
	return st
}

// abs returns the whole path of a directory below the watched one.
func (r *root) abs(rel string) string { return filepath.Join(r.path, rel) }
