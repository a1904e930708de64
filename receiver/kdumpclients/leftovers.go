package kdumpclients

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// load reads the tree. One that makes no sense is put aside, with all that belongs to it: what the host sends from now on
// counts for more than what may be in there.
func (h *host) load() error {
	if err := os.MkdirAll(h.dir, 0o750); err != nil {
		return err
	}
	state, err := loadState(h.dir)
	if h.state = state; err == nil {
		err = h.adopt()
	}
	if errors.Is(err, errState) {
		aside := filepath.Join(filepath.Dir(h.dir), fmt.Sprintf(".damaged-%s-%d", h.name, time.Now().Unix()))
		h.svc.cfg.Log.Error("cannot tell what a host has sent; it is put aside for people to look at", "host", h.name, "to", aside, "error", err)
		h.state = newHostState()
		if err := os.Rename(h.dir, aside); err != nil {
			return err
		}
		err = os.Mkdir(h.dir, 0o750)
	}
	if err != nil {
		return err
	}
	defer h.unstage() // what is there was not counted
	return h.sweep()
}

// sweep removes what tree.json does not know.
func (h *host) sweep() error {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return err
	}
	known := map[uint64]bool{}
	for _, d := range h.state.Dirs {
		for _, f := range d.Files {
			known[f.Num] = true
		}
		if d.Dump != nil && d.Dump.Image != nil {
			known[d.Dump.Image.Num] = true
		}
	}
	for _, e := range entries {
		var num uint64
		if _, err := fmt.Sscanf(e.Name(), "%d.", &num); err == nil && !known[num] {
			h.remove(num)
		}
	}
	return nil
}

// adopt takes over what an earlier process left: uploads that were under way have broken off.
func (h *host) adopt() error {
	for p, d := range h.state.Dirs {
		if d == nil || !path.IsAbs(p) || path.Clean(p) != p {
			return fmt.Errorf("%w: directory %q", errState, p)
		}
		for name, f := range d.Files {
			if f == nil || name == "" || strings.Contains(name, "/") {
				return fmt.Errorf("%w: file %q in %q", errState, name, p)
			}
			if f.Status != fileArriving {
				continue
			}
			f.Status, f.Reason = fileBroken, "the receiver was stopped while it arrived"
			if m := h.loadMap(f.Num); m != nil {
				f.Image = &m.Image
			} else if st, err := os.Stat(h.path(f.Num, "file")); err == nil {
				f.Size = st.Size() // tree.json has that of its last change
				if err := h.cutLog(name, f); err != nil {
					return err
				}
			}
			d.Used = time.Now().UTC() // the client may be about to come back
		}
		// JSON has two of the file that a dump is being made of.
		if d.Dump != nil && d.Dump.Image != nil {
			for _, f := range d.Files {
				if f.Num == d.Dump.Image.Num {
					d.Dump.Image = f
				}
			}
		}
	}
	return nil
}

// expire removes directories and files that have had their time.
func (h *host) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.recount()
	changed := false
	for p, d := range h.state.Dirs {
		age := time.Since(d.Used)
		switch f := d.Files; {
		case d.Dump != nil: // it is sealed first
		case len(f) == 0 && d.Temp && age >= tempFor && !h.state.hasDirs(p):
			delete(h.state.Dirs, p)
			changed = true
		case age >= statusFor && len(f) > 0 && onlyStatus(f):
			for name, s := range f {
				h.drop(s)
				delete(f, name)
			}
			if p != "/" && !h.state.hasDirs(p) {
				delete(h.state.Dirs, p)
			}
			changed = true
		}
	}
	if changed {
		if err := h.state.save(h.dir); err != nil {
			h.svc.cfg.Log.Warn("cannot note that old files of a host are gone", "host", h.name, "error", err)
		}
	}
}

func onlyStatus(files map[string]*fileState) bool {
	for name, f := range files {
		if !isStatus(name) || f.Status == fileArriving {
			return false
		}
	}
	return true
}
