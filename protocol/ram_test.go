package protocol

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/corehaul/corehaul/mem"
)

func TestRAMPieces(t *testing.T) {
	ranges := make([]mem.Range, 10_000)
	for i := range ranges {
		start := mem.PhysAddr(i) << 40
		ranges[i] = mem.Range{Start: start, End: start + 1<<39}
	}
	var got []mem.Range
	pieces := 0
	for m := range RAMPieces(ranges) {
		frame := encodeFrame(t, m, Params{})
		if len(frame)-headerLen > PieceBytes {
			t.Fatalf("piece of %d bytes", len(frame)-headerLen)
		}
		got = append(got, decodeFrame(t, frame, Params{}).(*RAM).Ranges...)
		pieces++
	}
	if !slices.Equal(got, ranges) || pieces < 2 {
		t.Errorf("%d ranges in %d pieces, want the %d sent in several", len(got), pieces, len(ranges))
	}
}

func TestRAMKeepsBytes(t *testing.T) {
	want := []mem.Range{{Start: 0x1000, End: 0x9fc00}, {Start: 0x9fc00, End: 0x9fc01}, {Start: maxAddr - 1, End: maxAddr}}
	frame := encodeFrame(t, &RAM{Ranges: want}, Params{})
	if got := decodeFrame(t, frame, Params{}).(*RAM).Ranges; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRAMRefuses(t *testing.T) {
	for name, r := range map[string][]mem.Range{
		"empty":    {{Start: 5, End: 5}},
		"reversed": {{Start: 5, End: 4}},
		"overlap":  {{Start: 5, End: 9}, {Start: 8, End: 12}},
		"beyond":   {{Start: 5, End: maxAddr + 1}},
	} {
		if _, err := (&RAM{Ranges: r}).appendPayload(nil, Params{}); !errors.Is(err, CodeBadMessage) {
			t.Errorf("encode %s: got %v, want %s", name, err, CodeBadMessage)
		}
	}
	for name, numbers := range map[string][]uint64{
		"empty range":      {1, 0},
		"no length":        {1},
		"beyond":           {maxAddr, 1},
		"gap too large":    {maxAddr + 1, 1},
		"length too large": {0, 1 << 63},
	} {
		var b []byte
		for _, v := range numbers {
			b = binary.AppendUvarint(b, v)
		}
		if got, err := decodeRAM(b, nil); err == nil || got != nil {
			t.Errorf("decode %s: got %v and %v, want an error alone", name, got, err)
		}
	}
}
