package kdumpclients

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/receiver/admission"
)

// host is what is kept of one host while the service runs.
type host struct {
	svc  *Service
	name string
	dir  string // on disk

	mu      sync.Mutex
	state   *hostState
	removed bool               // bytes of files went, and account does not know
	uploads map[uint64]*upload // by number of the file

	account *admission.Account
}

// change runs fn on the state and makes what it did durable. If that cannot be done, the change is not
// taken back: the next one tries again.
func (h *host) change(fn func(*hostState) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.recount()
	if err := fn(h.state); err != nil {
		return err
	}
	return h.state.save(h.dir)
}

// recount gives back the room of files that were removed. mu is held.
func (h *host) recount() {
	if h.removed {
		h.removed = false
		h.unstage()
	}
}

// makeRoom drops the directory that nobody has used for the longest, of those that are empty; clients that were cut off leave
// some. It drops none on the way to c.
func (s *hostState) makeRoom(c string) bool {
	oldest := ""
	for p, d := range s.Dirs {
		if len(d.Files) > 0 || d.Dump != nil || strings.HasPrefix(c+"/", p+"/") || p == "/" || s.hasDirs(p) {
			continue
		}
		if time.Since(d.Used) >= tempFor && (oldest == "" || d.Used.Before(s.Dirs[oldest].Used)) {
			oldest = p
		}
	}
	delete(s.Dirs, oldest)
	return oldest != ""
}

// hasDirs reports whether directory p has others in it.
func (s *hostState) hasDirs(p string) bool {
	for q := range s.Dirs {
		if q != "/" && path.Dir(q) == p {
			return true
		}
	}
	return false
}

// file returns the file at cleaned path c, nil when there is none.
func (s *hostState) file(c string) *fileState {
	if d := s.Dirs[path.Dir(c)]; d != nil {
		return d.Files[path.Base(c)]
	}
	return nil
}

func (d *dirState) put(name string, f *fileState) {
	if d.Files == nil {
		d.Files = map[string]*fileState{}
	}
	d.Files[name] = f
}

// drop deletes the bytes of a file that has no name any more, unless a dump is being made of it. mu is held.
func (h *host) drop(f *fileState) {
	if u := h.uploads[f.Num]; u != nil {
		delete(h.uploads, f.Num)
		u.revoke() // what it has written goes when it ends
		return
	}
	if !h.busy(f.Num) {
		h.remove(f.Num)
	}
}

// remove deletes the bytes of file num. mu is held.
func (h *host) remove(num uint64) {
	h.removed = true
	for _, kind := range []string{"file", "image", "map"} {
		if err := os.Remove(h.path(num, kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			h.svc.cfg.Log.Warn("cannot remove a staged file", "host", h.name, "error", err)
		}
	}
}

func (h *host) path(num uint64, kind string) string {
	return filepath.Join(h.dir, fmt.Sprintf("%d.%s", num, kind))
}

// info describes what is at cleaned path c, nil when nothing is.
func (s *hostState) info(c string) *fileInfo {
	if d := s.Dirs[c]; d != nil {
		return &fileInfo{name: path.Base(c), mod: d.Used, dir: true}
	}
	if f := s.file(c); f != nil {
		return &fileInfo{name: path.Base(c), size: f.Size, mod: f.Mod}
	}
	return nil
}

// busy reports whether a dump is being made of file num. mu is held.
func (h *host) busy(num uint64) bool {
	for _, d := range h.state.all() {
		if d.Dump != nil && d.Dump.Image != nil && d.Dump.Image.Num == num && !d.Dump.Sealed {
			return true
		}
	}
	return false
}

// hasDump reports whether the client has begun to send the memory of the machine into d.
func (d *dirState) hasDump() bool {
	if d.Dump != nil && d.Dump.Sealed {
		return true
	}
	for name, f := range d.Files {
		if f.Image != nil || isDumpName(name) && f.Size > 0 {
			return true
		}
	}
	return false
}

// crashedAgain gives path p to a crash that begins, and returns its directory. All clients send the log first, and directories of Debian's
// and SUSE's carry the minute: a log that comes behind a dump is of another crash, which must not lose it.
func (s *hostState) crashedAgain(p string, peer Peer) *dirState {
	old, now := s.Dirs[p], time.Now().UTC()
	next := &dirState{Born: now, Used: now, Peer: peer.Addr, Dumps: old.Dumps + 1}
	for name, f := range old.Files {
		if isStatus(name) {
			next.put(name, f)
			delete(old.Files, name)
		}
	}
	old.Past = p
	s.Past, s.Dirs[p] = append(s.Past, old), next
	return next
}
