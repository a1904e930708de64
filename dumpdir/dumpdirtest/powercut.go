package dumpdirtest

import (
	"math/rand/v2"
	"slices"
)

// Off switches the power off: every operation fails from now on, until Cut.
func (s *FS) Off() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = true
}

// Cut cuts the power and brings it back. Every file keeps what was synced, and of what was
// written since any subset of sectors that rnd picks; every directory a prefix of its
// changes. Open files and locks are gone.
func (s *FS) Cut(rnd *rand.Rand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.off, s.fault, s.locks = false, nil, map[string]bool{}
	for _, name := range slices.Sorted(keysOf(s.dirs)) {
		d := s.dirs[name]
		for _, c := range d.log[:rnd.IntN(len(d.log)+1)] {
			c.apply(d.durable)
		}
		d.names, d.log = cloneNames(d.durable), nil
		for _, n := range slices.Sorted(keysOf(d.names)) {
			d.names[n].cut(rnd)
		}
	}
}

// cut leaves of the pending writes what a disk might: whole, in part, or nothing of each,
// independently of their order.
func (i *inode) cut(rnd *rand.Rand) {
	data := i.durable
	for _, p := range i.pending {
		switch rnd.IntN(3) {
		case 0:
			continue
		case 1:
			data = p.apply(data)
		case 2:
			data = p.tear(data, rnd)
		}
	}
	i.data, i.durable, i.pending = slices.Clone(data), data, nil
}

// tear applies the sectors of a write that rnd picks. The length may or may not have grown.
func (p pending) tear(data []byte, rnd *rand.Rand) []byte {
	if p.data == nil {
		return data
	}
	for off := 0; off < len(p.data); {
		n := min(len(p.data)-off, sectorLen-int((p.off+int64(off))%sectorLen))
		if rnd.IntN(2) == 0 {
			data = pending{p.off + int64(off), p.data[off : off+n]}.apply(data)
		}
		off += n
	}
	return data
}
