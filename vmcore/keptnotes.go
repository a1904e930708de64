package vmcore

import (
	"cmp"
	"encoding/binary"
	"sort"
)

// MaxNotes is the limit of a dump's notes in bytes, the same as on the wire. It is twice the notes of 8192 CPUs, the
// most that kernels can be built for, on ppc64, which has the largest notes: 524 bytes for each CPU (aarch64 412,
// x86_64 356; s390x has more than 1 KiB, but at most 512 CPUs). VMCOREINFO has one page. Larger notes are device
// dumps (vmcoredd), up to gigabytes: too much for a capture kernel.
const MaxNotes = 8 << 20

// placedNote is the place of a note. n includes its header and padding.
type placedNote struct {
	seq    int // in the order of the file
	off, n int64
}

// ReadNotes returns the notes in places, in order. read returns n bytes at off. If there are more than MaxNotes
// bytes, ReadNotes leaves out the largest notes, with a warning: a dump never fails because of large notes.
func ReadNotes(read func(off int64, n int) ([]byte, error), order binary.ByteOrder, places []Segment, warn func(string, ...any)) ([]byte, error) {
	var notes []placedNote
	var total uint64
	for _, s := range places {
		notes = append(notes, placedNote{off: s.Offset, n: s.FileEnd() - s.Offset})
		total += min(s.Filesz, MaxNotes+1)
	}
	if total > MaxNotes {
		var err error
		if notes, err = smallNotes(read, order, places, warn); err != nil {
			return nil, err
		}
	}
	var b []byte
	for _, note := range notes {
		p, err := read(note.off, int(note.n))
		if err != nil {
			return nil, err
		}
		b = append(b, p...)
	}
	return b, nil
}

// smallNotes returns the smallest notes in places, up to MaxNotes bytes.
func smallNotes(read func(off int64, n int) ([]byte, error), order binary.ByteOrder, places []Segment, warn func(string, ...any)) ([]placedNote, error) {
	var notes []placedNote
	for _, s := range places {
		var err error
		if notes, err = walkNotes(notes, read, order, s, warn); err != nil {
			return nil, err
		}
	}
	// slices.SortFunc would make much code for a type of this size, and the sender has to be small.
	sort.Slice(notes, func(i, j int) bool { return cmp.Or(cmp.Compare(notes[i].n, notes[j].n), notes[i].seq-notes[j].seq) < 0 })
	kept, size := 0, int64(0)
	for kept < len(notes) && size+notes[kept].n <= MaxNotes {
		size += notes[kept].n
		kept++
	}
	warn("the notes are too large: the smallest ones, %d bytes, are kept, and %d notes are left out", size, len(notes)-kept)
	notes = notes[:kept]
	sort.Slice(notes, func(i, j int) bool { return notes[i].seq < notes[j].seq })
	return notes, nil
}

// walkNotes appends the notes in s up to the first invalid one.
func walkNotes(notes []placedNote, read func(off int64, n int) ([]byte, error), order binary.ByteOrder, s Segment, warn func(string, ...any)) ([]placedNote, error) {
	end := s.FileEnd()
	for off := s.Offset; end-off >= noteHeaderLen; {
		b, err := read(off, noteHeaderLen)
		if err != nil {
			return nil, err
		}
		unpadded := noteHeaderLen + int64(alignUp(uint64(order.Uint32(b)))) + int64(order.Uint32(b[4:])) //nolint:gosec // two lengths of 32 bits
		if unpadded > end-off || len(notes) == maxNotes {
			warn("ELF note %d at %#x: %d bytes do not fit, or the notes are too many; the notes from there on are not used", len(notes), off, unpadded)
			break
		}
		n := min(int64(alignUp(uint64(unpadded))), end-off) //nolint:gosec // positive
		notes = append(notes, placedNote{len(notes), off, n})
		off += n
	}
	return notes, nil
}
