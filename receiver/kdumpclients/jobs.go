package kdumpclients

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/storage"
)

const (
	// retryAfter is when work on a directory is tried again that failed.
	retryAfter = time.Minute
	// tempFor is how long a directory of MkdirTemp stays, statusFor how long the status file of kdump's test mode does.
	tempFor   = time.Hour
	statusFor = 24 * time.Hour
	// maxJobs bounds the directories that are worked on at a time; maxImports those whose dumps are copied, one of each host.
	maxJobs    = 16
	maxImports = 1
	// importTurn is how long an import may keep others waiting. It goes on then, beside the next: a few bytes
	// can speak of billions of pages, each of which is looked for.
	importTurn = 10 * time.Minute
)

// isStatus reports whether a file is what "kdumpctl test" leaves and fetches.
func isStatus(name string) bool { return name == "vmcore-creation.status" }

// isLog reports whether a file by this name is the log of the system kernel. Names of all clients: vmcore-dmesg-incomplete.txt,
// vmcore-dmesg.txt, dmesg, dmesg.202611250800.
func isLog(name string) bool {
	return name == "dmesg" || strings.HasPrefix(name, "dmesg.") || strings.HasPrefix(name, "vmcore-dmesg")
}

// job is a directory that is worked on.
type job struct {
	svc  *Service
	h    *host
	path string
	dir  *dirState
}

// jobs keeps who works on what.
type jobs struct {
	mu      sync.Mutex
	running map[*dirState]bool
	retry   map[*dirState]time.Time
	imports chan struct{}   // holds one for each import that keeps others waiting
	of      map[string]bool // hosts that have an import under way
	turn    time.Duration   // importTurn
	kick    chan struct{}   // holds one signal when something changed
}

func newJobs() *jobs {
	return &jobs{
		running: map[*dirState]bool{}, retry: map[*dirState]time.Time{},
		imports: make(chan struct{}, maxImports), of: map[string]bool{}, turn: importTurn, kick: make(chan struct{}, 1),
	}
}

// beginImport reports whether a dump of the host may be copied now; end has to be called when it was.
func (js *jobs) beginImport(host string, wake func()) (end func(), ok bool) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.of[host] {
		return nil, false
	}
	select {
	case js.imports <- struct{}{}:
	default:
		return nil, false
	}
	js.of[host] = true
	next := sync.OnceFunc(func() { <-js.imports; wake() })
	timer := time.AfterFunc(js.turn, next)
	return func() {
		timer.Stop()
		js.mu.Lock()
		delete(js.of, host)
		js.mu.Unlock()
		next()
		wake()
	}, true
}

// wake has directories looked at.
func (s *Service) wake() {
	select {
	case s.jobs.kick <- struct{}{}:
	default:
	}
}

// Run makes dumps of what arrives, until ctx is done. What is under way then is taken up by the next Run.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(min(max(s.cfg.Grace/4, 50*time.Millisecond), 15*time.Second))
	defer tick.Stop()
	for {
		for _, j := range s.due() {
			wg.Go(func() { s.run(ctx, j) })
		}
		select {
		case <-s.jobs.kick:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// due claims the directories that have work.
func (s *Service) due() (due []*job) {
	s.mu.Lock()
	hosts := slices.Collect(maps.Values(s.hosts))
	s.mu.Unlock()
	for _, h := range hosts {
		h.expire()
		h.mu.Lock()
		for p, d := range h.state.Dirs {
			if j := (&job{svc: s, h: h, path: p, dir: d}); j.hasWork() && s.jobs.claim(d) {
				due = append(due, j)
			}
		}
		h.mu.Unlock()
	}
	return due
}

func (js *jobs) claim(d *dirState) bool {
	js.mu.Lock()
	defer js.mu.Unlock()
	if js.running[d] || len(js.running) >= maxJobs || time.Now().Before(js.retry[d]) {
		return false
	}
	js.running[d] = true
	return true
}

func (js *jobs) release(d *dirState, failed bool) {
	js.mu.Lock()
	defer js.mu.Unlock()
	delete(js.running, d)
	delete(js.retry, d)
	maps.DeleteFunc(js.retry, func(_ *dirState, at time.Time) bool { return time.Now().After(at) }) // their directories may be gone
	if failed {
		js.retry[d] = time.Now().Add(retryAfter)
	}
}

// run works on a directory and says what came of it.
func (s *Service) run(ctx context.Context, j *job) {
	err := j.workSafely(ctx)
	later := errors.Is(err, errLater)
	failed := err != nil && !later && !errors.Is(err, errAgain) && ctx.Err() == nil
	s.jobs.release(j.dir, failed)
	if later {
		return // the end of the import that is under way wakes
	}
	if !failed {
		s.wake() // others may have waited for the place
		return
	}
	s.cfg.Log.Error("cannot make a dump of what a host sent; trying again", "host", j.h.name, "directory", j.path, "after", retryAfter, "error", err)
}

// errLater ends a piece of work that waits for another dump to be copied.
var errLater = errors.New("another dump is being copied")

// errAgain ends a piece of work after which there may be more.
var errAgain = errors.New("more to do")

// settled reports whether nothing more comes for now: the client has ended or is gone. h.mu is held.
func (j *job) settled() bool {
	for _, f := range j.dir.Files {
		if f.Status == fileArriving {
			return false
		}
	}
	return time.Since(j.dir.Used) >= j.svc.cfg.Grace
}

// hasWork reports whether anything is to be done now. h.mu is held.
func (j *job) hasWork() bool {
	d := j.dir
	if d.Dump != nil && d.Dump.Image != nil && !d.Dump.Sealed {
		return true
	}
	if name, _ := j.nextLog(); name != "" {
		return true
	}
	if name, _ := j.nextImage(); name != "" {
		return true
	}
	if d.Dump != nil && d.Dump.Sealed && j.nextKept() != "" {
		return true
	}
	return j.settled() && (d.Dump != nil || j.clientFiles())
}

// clientFiles reports whether there are files other than of the test mode. h.mu is held.
func (j *job) clientFiles() bool {
	for name := range j.dir.Files {
		if !isStatus(name) {
			return true
		}
	}
	return false
}

// usable reports whether what has come of f is all that is going to come. h.mu is held.
func (j *job) usable(f *fileState) bool {
	return f.Status == fileWhole || f.Status == fileBroken && j.settled()
}

// each calls fn for the files in the order in which they were begun, until it returns false. h.mu is held.
func (d *dirState) each(fn func(name string, f *fileState) bool) {
	names := slices.SortedFunc(maps.Keys(d.Files), func(a, b string) int { return int(d.Files[a].Num) - int(d.Files[b].Num) }) //nolint:gosec // numbers are small
	for _, name := range names {
		if !fn(name, d.Files[name]) {
			return
		}
	}
}

// nextLog returns a log that is to be stored: of a dump that has none. h.mu is held.
func (j *job) nextLog() (name string, f *fileState) {
	if d := j.dir.Dump; d != nil && d.Sealed {
		return "", nil
	}
	j.dir.each(func(n string, g *fileState) bool {
		if isLog(n) && g.Image == nil && j.usable(g) && g.Size > 0 && (g.Status == fileWhole || f == nil || f.Status == fileBroken) {
			name, f = n, g // a later one was read by a client that tried again
		}
		return true
	})
	if d := j.dir.Dump; d != nil && f != nil && (d.Log == f.Num || f.Kept) {
		return "", nil
	}
	return name, f
}

// nextImage returns a dump that is to be imported: one that is whole, or when the client is gone the last of those that
// are not, if none was whole. h.mu is held.
func (j *job) nextImage() (name string, f *fileState) {
	broken, done := "", false
	j.dir.each(func(n string, g *fileState) bool {
		switch {
		case g.Image == nil:
		case g.Image.Settled:
			done = done || g.Status == fileWhole
		case g.Status == fileWhole:
			name, f = n, g
			return false
		case j.usable(g):
			broken = n
		}
		return true
	})
	if f == nil && broken != "" && !done {
		return broken, j.dir.Files[broken]
	}
	return name, f
}

// nextKept returns a file that is to be kept beside the dump. h.mu is held.
func (j *job) nextKept() (name string) {
	j.dir.each(func(n string, f *fileState) bool {
		if f.Image == nil && !f.Kept && !isStatus(n) && j.usable(f) && !j.isStoredLog(f) {
			name = n
		}
		return name == ""
	})
	return name
}

func (j *job) isStoredLog(f *fileState) bool { return j.dir.Dump != nil && j.dir.Dump.Log == f.Num }

// busy reports whether a dump is being made of file num. mu is held.
func (h *host) busy(num uint64) bool {
	for _, d := range h.state.Dirs {
		if d.Dump != nil && d.Dump.Image != nil && d.Dump.Image.Num == num && !d.Dump.Sealed {
			return true
		}
	}
	return false
}

// dumpID names the dump that comes of a directory. The path has the client's address and time in it, and Born tells two
// crashes apart at which the machine's clock stood the same.
func (j *job) dumpID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "stock\x00%s\x00%s\x00%d\x00%d", j.h.name, j.path, j.dir.Born.UnixNano(), j.dir.Dumps))
	return hex.EncodeToString(sum[:16])
}

// Owns reports whether a dump that is arriving is one that the Service is going to seal.
func (s *Service) Owns(ref storage.Ref) bool {
	s.mu.Lock()
	h := s.hosts[ref.Host]
	s.mu.Unlock()
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.state.Dirs {
		if d.Dump != nil && d.Dump.ID == ref.ID && !d.Dump.Sealed {
			return true
		}
	}
	return false
}

// keptName is the name of a client's file beside the dump: without the mark of one that is arriving.
func keptName(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '\\' || r > '~' {
			return '_'
		}
		return r
	}, strings.Replace(name, "-incomplete", "", 1))
	clean = strings.TrimSuffix(strings.TrimLeft(clean, "."), ".tmp")
	if len(clean) > 200 {
		clean = clean[:200]
	}
	if clean == "" {
		return "file"
	}
	return clean
}

// finish takes what is done out of the tree. Status files stay.
func (j *job) finish() error {
	return j.h.change(func(s *hostState) error {
		_, image := j.nextImage()
		if s.Dirs[j.path] != j.dir || !j.settled() || image != nil || j.nextKept() != "" {
			return errAgain
		}
		for name, f := range j.dir.Files {
			if !isStatus(name) {
				delete(j.dir.Files, name)
				j.h.drop(f)
			}
		}
		j.dir.Dump = nil
		j.dir.Dumps++
		if len(j.dir.Files) == 0 && j.path != "/" && !s.hasDirs(j.path) {
			delete(s.Dirs, j.path)
		}
		return nil
	})
}
