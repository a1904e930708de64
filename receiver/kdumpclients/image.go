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
	// maxImage bounds a dump's file, and so every offset in it: 16 TiB is where ext4 ends.
	maxImage = 16 << 40
	// checkpoint is how many bytes of a dump come between two checkpoints, and checkpointEvery how much time at the most.
	checkpoint      = 64 << 20
	checkpointEvery = 5 * time.Second
	// maxPieces bounds the gaps in a dump that arrives.
	maxPieces = 1 << 14
	maxMapLen = 1 << 20
)

// imageState is what is known of the dump in a file.
type imageState struct {
	// Wrap is what the dump came in, from the outside in: gzip, flattened.
	Wrap []form `json:"wrap,omitempty"`
	// InPlace tells that the client's own file is the dump.
	InPlace bool `json:"in_place,omitempty"`
	// Marked tells that the end marker of a flattened stream came.
	Marked bool `json:"marked,omitempty"`
	// Done tells that nothing is to be done with it any more.
	Done bool `json:"settled,omitempty"`
}

// imageMap is N.map: which bytes of a dump have come.
type imageMap struct {
	Image    imageState          `json:"image"`
	Coverage *flattened.Coverage `json:"coverage"`
}

// image is a dump that arrives.
type image struct {
	h     *host
	num   uint64
	state imageState
	f     *os.File
	have  *flattened.Coverage
	since int64     // bytes since the last checkpoint
	saved time.Time // when that was
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

// direct writes bytes that are the dump's own, and notes them.
func (i *image) direct(p []byte, off int64) (int, error) {
	n, err := i.WriteAt(p, off)
	i.h.giveRoom(int64(n) - i.have.Add(off, int64(n)))
	if err == nil && i.have.Spans() > maxPieces {
		err = fmt.Errorf("%w: more than %d pieces with gaps between them", fs.ErrInvalid, maxPieces)
	}
	return n, err
}

// checkpoint makes durable what has come, every now and then: a receiver that is killed knows it when it starts again.
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

// loadMap reads N.map, nil when there is none that can be used.
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
