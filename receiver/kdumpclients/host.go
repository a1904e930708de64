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

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/receiver/admission"
)

// host is the state of one host while the service runs.
type host struct {
	svc  *Service
	name string
	dir  string // on disk

	mu      sync.Mutex
	state   *hostState
	removed bool               // files were removed, and account still counts them
	uploads map[uint64]*upload // by number of the file

	account *admission.Account
}

// change runs fn on the state and saves it durably. If saving fails, the change is not undone: the next change saves it.
func (h *host) change(fn func(*hostState) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.recount()
	if err := fn(h.state); err != nil {
		return err
	}
	return h.state.save(h.dir)
}

// recount releases the room of removed files. mu is held.
func (h *host) recount() {
	if h.removed {
		h.removed = false
		h.unstage()
	}
}

// makeRoom drops the empty directory that was unused for the longest time, because interrupted clients leave some. It drops
// none on the path to c.
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

// file returns the file at clean path c, nil if there is none.
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

// drop deletes the bytes of a file without a name, unless a job makes a dump of it. mu is held.
func (h *host) drop(f *fileState) {
	if u := h.uploads[f.Num]; u != nil {
		delete(h.uploads, f.Num)
		u.revoke() // its bytes are deleted when it ends
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

// info describes the file or directory at clean path c, nil if there is none.
func (s *hostState) info(c string) *fileInfo {
	if d := s.Dirs[c]; d != nil {
		return &fileInfo{name: path.Base(c), mod: d.Used, dir: true}
	}
	if f := s.file(c); f != nil {
		return &fileInfo{name: path.Base(c), size: f.Size, mod: f.Mod}
	}
	return nil
}

// busy reports whether a job makes a dump of file num. mu is held.
func (h *host) busy(num uint64) bool {
	for _, d := range h.state.all() {
		if d.Dump != nil && d.Dump.Image != nil && d.Dump.Image.Num == num && !d.Dump.Sealed {
			return true
		}
	}
	return false
}

// hasDump reports whether the client has started to send the machine's memory into d.
func (d *dirState) hasDump() bool {
	if d.Dump != nil && d.Dump.Sealed {
		return true
	}
	for name, f := range d.Files {
		if f.Image != nil || dumpcopy.IsDump(name) && f.Size > 0 {
			return true
		}
	}
	return false
}

// crashedAgain makes a new directory at path p for another crash. All clients send the log first, and the names of Debian's
// and SUSE's directories have the minute. So a log that comes after a dump is from another crash and must not be lost.
func (s *hostState) crashedAgain(p string, peer Peer) *dirState {
	old, now := s.Dirs[p], time.Now().UTC()
	next := &dirState{Born: now, Used: now, Peer: peer.Addr, Dumps: old.Dumps + 1}
	for name, f := range old.Files {
		if dumpcopy.IsStatus(name) {
			next.put(name, f)
			delete(old.Files, name)
		}
	}
	old.Past = p
	s.Past, s.Dirs[p] = append(s.Past, old), next
	return next
}
