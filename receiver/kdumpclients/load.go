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

// load reads the tree. It moves an invalid tree aside with all its files, because the next dumps of the host are more
// important than the old files.
func (h *host) load() error {
	if err := os.MkdirAll(h.dir, 0o750); err != nil {
		return err
	}
	state, err := loadState(h.dir)
	if h.state = state; err == nil {
		err = h.endUploads()
	}
	if errors.Is(err, errState) {
		aside := filepath.Join(filepath.Dir(h.dir), fmt.Sprintf(".damaged-%s-%d", h.name, time.Now().Unix()))
		h.svc.cfg.Log.Error("cannot read the files of a host; they were moved aside", "host", h.name, "to", aside, "error", err)
		h.state = newHostState()
		if err := os.Rename(h.dir, aside); err != nil {
			return err
		}
		err = os.Mkdir(h.dir, 0o750)
	}
	if err != nil {
		return err
	}
	defer h.unstage() // its bytes were not counted
	return h.sweep()
}

// endUploads checks the files of an earlier process, and marks its unfinished uploads as broken off.
func (h *host) endUploads() error {
	for p, d := range h.state.all() {
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
				f.Size = st.Size() // tree.json has the size at its last change
				if err := h.cutLog(name, f); err != nil {
					return err
				}
			}
			d.Used = time.Now().UTC() // the client may be about to come back
		}
		// After JSON, the file of a dump in progress exists twice.
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
