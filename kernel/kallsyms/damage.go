package kallsyms

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/corehaul/corehaul/kernel"
)

// A page of the tables that is missing or damaged costs what it has. Names follow each other without a place of their own, but the
// markers have that of every 256th. So names behind a hole are lost up to the next marker. A lost name is none: no symbol gets
// another's.

// ErrIncomplete is what errors of Load match that come with a Table: some of its names or addresses are lost.
var ErrIncomplete = errors.New("kallsyms is incomplete")

// incomplete is the error of a table with losses, nil if there are none.
func (t *Table) incomplete() error {
	names, addresses := t.names.lost, t.lost.Bytes()
	if names == 0 && addresses == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d of %d names and %d addresses could not be read", ErrIncomplete, names, len(t.names.starts), addresses)
}

// scaled returns the holes of a table in its values of a width.
func scaled(h kernel.Holes, width int) (list kernel.Holes) {
	for _, s := range h {
		list = append(list, kernel.Hole{Start: s.Start / width, End: alignUp(s.End, width) / width})
	}
	return list
}

// noName is in the place of the start of a name that is lost.
const noName = 1<<32 - 1

// marker is where a block of names starts, if it could be read.
type marker struct {
	at    int
	known bool
}

// splitDamaged is split for names with holes. The end of the names may be lost, and with it the place of the markers: they end at the
// tokens, or in 6.2 and 6.3 at a table of 3 bytes for each symbol (kallsyms_seqs_of_names).
func (n *names) splitDamaged(text []byte, lost kernel.Holes, count int) error {
	var failure error
	for _, big := range []bool{true, false} {
		for _, form := range []struct{ align, width, after int }{{4, 4, 0}, {8, 4, 0}, {8, 8, 0}, {8, 4, 3}, {4, 4, 3}} {
			at := len(text) - alignUp(form.after*count, form.align) - alignUp(blocks(count)*form.width, form.align)
			if at < 0 {
				continue
			}
			starts, proved, err := splitBlocks(text[:at], lost, readMarkers(text, lost, at, form.width, count), count, big)
			if err == nil && proved > 0 {
				n.text, n.starts, n.big = text[:at:at], starts, big
				return nil
			}
			if failure == nil {
				failure = err
			}
		}
	}
	if failure == nil {
		failure = corrupt("so much of kallsyms_names and kallsyms_markers cannot be read that nothing is certain")
	}
	return failure
}

// blocks returns how many blocks of names, each with a marker, a number of names has.
func blocks(count int) int { return (count + markerSpacing - 1) / markerSpacing }

// readMarkers reads the markers at a place in text.
func readMarkers(text []byte, lost kernel.Holes, at, width, count int) []marker {
	markers := make([]marker, blocks(count))
	for i := range markers {
		place := at + i*width
		markers[i] = marker{int(binary.LittleEndian.Uint32(text[place:])), !lost.Has(place, place+width)}
	}
	markers[0] = marker{0, true}
	return markers
}

// splitBlocks returns where names start that are not lost. It fails if names and markers disagree. proved counts the blocks that
// end where the next marker says.
func splitBlocks(text []byte, lost kernel.Holes, markers []marker, count int, big bool) (starts []uint32, proved int, err error) {
	starts = slices.Repeat([]uint32{noName}, count)
	next := marker{0, true}
	for i, m := range markers {
		if m.known && next.known && m.at != next.at {
			return nil, 0, corrupt("kallsyms_markers has symbol %d of %d at %d, but kallsyms_names at %d", i*markerSpacing, count, m.at, next.at)
		}
		if m.known && next.known && i > 0 {
			proved++
		}
		if m.known {
			next = m
		}
		last := min((i+1)*markerSpacing, count)
		if next, err = splitBlock(text, lost, next, starts[i*markerSpacing:last], big); err != nil {
			return nil, 0, err
		}
	}
	return starts, proved, nil
}

// splitBlock fills where the names of a block start, up to a hole in which one begins. It returns where the next block starts.
func splitBlock(text []byte, lost kernel.Holes, next marker, starts []uint32, big bool) (marker, error) {
	if !next.known {
		return next, nil
	}
	at := next.at
	for i := range starts {
		lengthBytes := 1
		if big && at < len(text) && text[at] >= bigLength {
			lengthBytes = 2
		}
		if lost.Has(at, at+lengthBytes) {
			return marker{}, nil
		}
		codes, end, ok := nameAt(text, at, big)
		if !ok || len(codes) == 0 {
			return marker{}, corrupt("kallsyms_names has no name at %d", at)
		}
		if !lost.Has(at, end) {
			starts[i] = uint32(at) //nolint:gosec // at most maxNamesSpace
		}
		at = end
	}
	return marker{at, true}, nil
}
