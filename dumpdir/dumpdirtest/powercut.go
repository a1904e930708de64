package dumpdirtest

import (
	"math/rand/v2"
	"slices"
)

// Off switches the power off: every operation fails until Cut.
func (s *FS) Off() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = true
}

// Cut cuts the power and restores it. Every file keeps its synced data and, of later writes, any subset of sectors that rnd
// picks. Every directory keeps the first of its unsynced changes, or any subset of them. Open files and locks are gone.
func (s *FS) Cut(rnd *rand.Rand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.off, s.fault, s.locks = false, nil, map[string]bool{}
	for _, name := range slices.Sorted(keysOf(s.dirs)) {
		d := s.dirs[name]
		for _, c := range survivors(d.log, rnd) {
			c.apply(d.durable)
		}
		d.names, d.log = cloneNames(d.durable), nil
		for _, n := range slices.Sorted(keysOf(d.names)) {
			d.names[n].cut(rnd)
		}
	}
}

// CloneCut returns an independent copy as it is after a Cut.
func (s *FS) CloneCut(rnd *rand.Rand) *FS {
	s.mu.Lock()
	c := NewFS()
	for name, d := range s.dirs {
		copies := map[*inode]*inode{nil: nil}
		copyOf := func(names map[string]*inode) map[string]*inode {
			out := make(map[string]*inode, len(names))
			for n, ino := range names {
				if copies[ino] == nil && ino != nil {
					copies[ino] = &inode{data: slices.Clone(ino.data), durable: slices.Clone(ino.durable), pending: slices.Clone(ino.pending)}
				}
				out[n] = copies[ino]
			}
			return out
		}
		nd := &dir{names: copyOf(d.names), durable: copyOf(d.durable)}
		for _, ch := range d.log {
			nd.log = append(nd.log, change{copyOf(ch.set)})
		}
		c.dirs[name] = nd
	}
	s.mu.Unlock()
	c.Cut(rnd)
	return c
}

// survivors picks the changes of names that reached the disk: the first ones, as on a file system that journals them in
// order, or any.
func survivors(log []change, rnd *rand.Rand) (kept []change) {
	if rnd.IntN(2) == 0 {
		return log[:rnd.IntN(len(log)+1)]
	}
	for _, c := range log {
		if rnd.IntN(2) == 0 {
			kept = append(kept, c)
		}
	}
	return kept
}

// cut picks what the disk has of each pending write: all, a part or nothing, independent of their order.
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
	*i = *newInode(data)
}

// tear applies the sectors of a write that rnd picks. The length may grow or not.
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
