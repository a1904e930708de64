package kdumpclients

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/vmcore/flattened"
)

const (
	// maxImage bounds a dump's file and every offset in it. 16 TiB is the limit of ext4.
	maxImage = 16 << 40
	// A checkpoint is made after checkpoint bytes of a dump, or after checkpointEvery.
	checkpoint      = 64 << 20
	checkpointEvery = 5 * time.Second
	// maxPieces bounds the gaps in an arriving dump.
	maxPieces = 1 << 14
	maxMapLen = 1 << 20
)

// imageState is the state of the dump in a file.
type imageState struct {
	// Wrap has the formats around the dump, the outermost first: gzip, flattened.
	Wrap []form `json:"wrap,omitempty"`
	// InPlace means that the client's own file is the dump.
	InPlace bool `json:"in_place,omitempty"`
	// Marked means that the end marker of a flattened stream came.
	Marked bool `json:"marked,omitempty"`
	// Done means that there is no more work with it.
	Done bool `json:"settled,omitempty"`
}

// imageMap is N.map: which bytes of a dump have come.
type imageMap struct {
	Image    imageState          `json:"image"`
	Coverage *flattened.Coverage `json:"coverage"`
}

// image is an arriving dump.
type image struct {
	h     *host
	num   uint64
	state imageState
	f     *os.File
	have  *flattened.Coverage
	since int64     // bytes since the last checkpoint
	saved time.Time // time of the last checkpoint
}

// WriteAt implements io.WriterAt. Whoever calls it keeps track of what have is.
func (i *image) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > maxImage-int64(len(p)) {
		return 0, fmt.Errorf("%w: a dump may have at most %d bytes", syscall.EFBIG, int64(maxImage))
	}
	if err := i.h.room(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := i.f.WriteAt(p, off)
	i.since += int64(n)
	return n, err
}

// direct writes bytes of the dump itself, and notes them as come.
func (i *image) direct(p []byte, off int64) (int, error) {
	n, err := i.WriteAt(p, off)
	i.h.giveRoom(int64(n) - i.have.Add(off, int64(n)))
	if err == nil && i.have.Spans() > maxPieces {
		err = fmt.Errorf("%w: more than %d pieces with gaps between them", fs.ErrInvalid, maxPieces)
	}
	return n, err
}

// checkpoint makes the bytes so far durable from time to time, so that they are known after a kill of the receiver.
func (i *image) checkpoint() error {
	if i.since < checkpoint && (i.since == 0 || time.Since(i.saved) < checkpointEvery) {
		return nil
	}
	return i.sync()
}

func (i *image) sync() error {
	i.since, i.saved = 0, time.Now()
	if err := i.f.Sync(); err != nil {
		return err
	}
	b, err := json.Marshal(imageMap{Image: i.state, Coverage: i.have})
	if err != nil {
		return err
	}
	return dumpdir.SaveFile(dumpdir.OS{}, i.h.dir, fmt.Sprintf("%d.map", i.num), b)
}

// loadMap reads N.map. It returns nil if there is none, or an invalid one.
func (h *host) loadMap(num uint64) *imageMap {
	b, err := plainfile.Read(h.path(num, "map"), maxStateBytes)
	m := imageMap{Coverage: new(flattened.Coverage)}
	if err == nil && len(b) <= maxMapLen {
		err = json.Unmarshal(b, &m)
	}
	if err != nil || m.Coverage == nil {
		if !errors.Is(err, fs.ErrNotExist) {
			h.svc.cfg.Log.Warn("cannot read which bytes of a dump have arrived", "host", h.name, "error", err)
		}
		return nil
	}
	return &m
}
