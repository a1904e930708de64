package elfcore

import (
	"io"

	"github.com/corehaul/corehaul/vmcore"
)

// readNotes returns the contents of all PT_NOTEs, one after the other, without
// large notes when they are more than maxNotes together.
func (h *header) readNotes(r io.ReaderAt, size int64, warn func(string, ...any)) ([]byte, error) {
	var total uint64
	for _, s := range h.notes {
		if s.Offset > size || s.Filesz > uint64(size-s.Offset) { //nolint:gosec // not negative
			return nil, vmcore.Truncatedf("PT_NOTE", s.Offset, "%d bytes of notes are not in a file of %d bytes", s.Filesz, size)
		}
		total += s.Filesz
	}
	var notes []byte
	for _, s := range h.notes {
		if total <= maxNotes {
			b, err := readRange(r, size, "PT_NOTE", s.Offset, int(s.Filesz)) //nolint:gosec // at most maxNotes
			if err != nil {
				return nil, err
			}
			notes = append(notes, b...)
			continue
		}
		var err error
		if notes, err = h.smallNotes(r, notes, s, warn); err != nil {
			return nil, err
		}
	}
	return notes, nil
}

// smallNotes appends the notes of s that are not large, until maxNotes are kept.
func (h *header) smallNotes(r io.ReaderAt, notes []byte, s vmcore.Segment, warn func(string, ...any)) ([]byte, error) {
	const headerLen = 12
	end := s.Offset + int64(s.Filesz) //nolint:gosec // within the file
	count := 0
	for off := s.Offset; end-off >= headerLen; count++ {
		var b [headerLen]byte
		if err := readFull(r, b[:], off); err != nil {
			return nil, err
		}
		n := headerLen + align4(h.order.Uint32(b[:])) + align4(h.order.Uint32(b[4:]))
		switch {
		case count == maxNoteCount:
			return nil, vmcore.Corruptf("PT_NOTE", off, "more than %d notes", maxNoteCount)
		case n > end-off:
			return nil, vmcore.Corruptf("ELF note", off, "%d bytes do not fit in its PT_NOTE", n)
		case n > maxNote || int64(len(notes))+n > maxNotes:
			warn("the note of %d bytes at offset %#x is left out: too large", n, off)
		default:
			note := make([]byte, n)
			if err := readFull(r, note, off); err != nil {
				return nil, err
			}
			notes = append(notes, note...)
		}
		off += n
	}
	return notes, nil
}

func align4(n uint32) int64 { return (int64(n) + 3) &^ 3 }
