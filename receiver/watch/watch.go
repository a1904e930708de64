package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Config says what to watch, and where its dumps go.
type Config struct {
	Dirs  []string        // absolute paths
	Store storage.Store   // takes the dumps
	Room  *admission.Room // of Store
	State string          // directory for watch.json; it is made when it is needed
	Data  string          // directory of the store: no watched directory may lie in it, or have it below
	Log   *slog.Logger
	Tool  string          // name and version of the program
	Codec kdumpfile.Codec // of pages that are not compressed yet
	Grace time.Duration   // without a change, after which an unfinished dump counts as abandoned
}

// Times of a watcher.
const (
	pollEvery = 10 * time.Second // between two looks
	lookGap   = time.Second      // least time from the start of a look to that of the next one, whatever inotify says
	// walkShare bounds the time of walks to one part in walkShare.
	walkShare = 20
	// patience is how long a call to the file system may take before the log says that it hangs, and longPatience how long a step of an
	// import may take: it reads a dump.
	patience, longPatience = time.Minute, 15 * time.Minute
	// goodbye is how long Run waits at its end for a file system that may hang.
	goodbye = 5 * time.Second
)

// Watcher watches directories.
type Watcher struct {
	cfg   Config
	roots []*root
}

// New checks the paths and reads what was taken before. A directory need not exist yet.
func New(cfg Config) (*Watcher, error) {
	w := &Watcher{cfg: cfg}
	if len(cfg.Dirs) == 0 {
		return w, nil
	}
	w.cfg.Data = resolve(cfg.Data)
	if err := CheckDirs(cfg.Dirs, cfg.Data); err != nil {
		return nil, err
	}
	mem := openMemory(cfg.State, cfg.Log)
	for _, dir := range cfg.Dirs {
		w.roots = append(w.roots, newRoot(&w.cfg, mem, filepath.Clean(dir)))
	}
	return w, nil
}

// CheckDirs returns why New would not take these directories, for a store in the directory data. It asks no file system about dirs.
func CheckDirs(dirs []string, data string) error {
	w := &Watcher{cfg: Config{Dirs: dirs, Data: resolve(data)}}
	var errs []error
	for i, dir := range dirs {
		if err := w.checkDir(dir, dirs[:i]); err != nil {
			errs = append(errs, fmt.Errorf("watch %q: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// checkDir returns why a directory cannot be watched. It asks no file system: one that hangs must not keep the receiver from starting.
func (w *Watcher) checkDir(dir string, others []string) error {
	if !filepath.IsAbs(dir) {
		return errors.New("the path has to be absolute")
	}
	for _, other := range others {
		if overlap(filepath.Clean(dir), filepath.Clean(other)) {
			return fmt.Errorf("%s is watched already, and is the same, above or below it", other)
		}
	}
	return w.cfg.checkOutside(filepath.Clean(dir))
}

// checkOutside returns an error if a directory and that of the store overlap.
func (c *Config) checkOutside(dir string) error {
	if overlap(dir, c.Data) {
		return fmt.Errorf("%s and the data directory %s are the same, or one lies in the other", dir, c.Data)
	}
	return nil
}

// resolve returns a path without links, as far as it exists.
func resolve(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	return filepath.Clean(path)
}

func overlap(a, b string) bool { return within(a, b) || within(b, a) }

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// Run watches until ctx is done. It does not wait for a file system that hangs.
func (w *Watcher) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, r := range w.roots {
		wg.Go(func() { r.run(ctx) })
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	tick := time.NewTicker(patience / 4)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return nil
		case <-tick.C:
			w.noticeHangs()
		case <-ctx.Done():
			w.end(ended)
			return nil
		}
	}
}

// end waits for the end of all looks, for a short time.
func (w *Watcher) end(ended <-chan struct{}) {
	select {
	case <-ended:
	case <-time.After(goodbye):
		w.cfg.Log.Warn("a watched directory does not answer; not waiting for it")
	}
}

func (w *Watcher) noticeHangs() {
	for _, r := range w.roots {
		r.noticeHang(time.Now())
	}
}

// Status is the state of a watched directory. Its JSON is part of "corehaul status --json".
type Status struct {
	Path     string `json:"path"`
	Error    string `json:"error,omitempty"` // why it cannot be read now
	Arriving int    `json:"arriving"`        // dumps that somebody may still write
	Failing  int    `json:"failing"`         // dumps and paths that cannot be taken; the log says why
	Taken    uint64 `json:"taken"`           // since the start
}

// Status returns the state of all watched directories.
func (w *Watcher) Status() []Status {
	list := make([]Status, len(w.roots))
	for i, r := range w.roots {
		list[i] = r.now()
	}
	return list
}
