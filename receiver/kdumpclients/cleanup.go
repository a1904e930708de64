package kdumpclients

import (
	"fmt"
	"os"
	"time"

	"github.com/corehaul/corehaul/dumpcopy"
)

// sweep removes files that tree.json does not list.
func (h *host) sweep() error {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return err
	}
	known := map[uint64]bool{}
	for _, d := range h.state.all() {
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

// expire removes directories and files that are too old.
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
			h.svc.cfg.Log.Warn("cannot record that old files of a host were removed", "host", h.name, "error", err)
		}
	}
}

func onlyStatus(files map[string]*fileState) bool {
	for name, f := range files {
		if !dumpcopy.IsStatus(name) || f.Status == fileArriving {
			return false
		}
	}
	return true
}
