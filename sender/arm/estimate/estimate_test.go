package estimate

import (
	"math"
	"testing"
)

// guest is Debian's 6.1.0-57-cloud-amd64 with virtio_net on a machine with 1 GiB.
var guest = Input{Kernel: 53968896, Unpacks: true, Packed: 5 << 20, Unpacked: 12 << 20, Loaded: 400 << 10, Cards: 1, Memory: 1 << 30}

func TestOf(t *testing.T) {
	with := func(change func(*Input)) Input {
		in := guest
		change(&in)
		return in
	}
	for _, tc := range []struct {
		name string
		in   Input
		want uint64 // MiB
	}{
		{"nothing is known", Input{}, 48},
		{"a guest", guest, 96}, // dies with 80
		{"no card", with(func(in *Input) { in.Cards = 0 }), 96},
		{"two cards", with(func(in *Input) { in.Cards = 2 }), 100},
		{"much memory", with(func(in *Input) { in.Memory = 64 << 30 }), 112},
		{"any memory", with(func(in *Input) { in.Memory = math.MaxUint64 }), 128},
		{"a kernel that does not unpack itself", with(func(in *Input) { in.Unpacks = false }), 112},
		{"firmware that is packed in 40 MiB", with(func(in *Input) { in.Packed = 45 << 20 }), 128},
		{"no number", Input{Kernel: math.MaxUint64, Packed: math.MaxUint64, Unpacked: math.MaxUint64}, math.MaxUint64>>20 - 3},
	} {
		e := Of(tc.in)
		if e.Size>>20 != tc.want {
			t.Errorf("%s: %d MiB, want %d: %+v", tc.name, e.Size>>20, tc.want, e.Parts)
		}
		if total := sum(e.Parts); e.Size < total && total < math.MaxUint64-step || e.Size-min(total, e.Size) >= step {
			t.Errorf("%s: the parts are %d, the size is %d", tc.name, total, e.Size)
		}
	}
}

func TestSeen(t *testing.T) {
	for _, tc := range []struct{ reserved, least, want uint64 }{
		{192, 106, 104}, {96, 19, 96}, {96, 97, 16}, {96, 0, 112},
	} {
		if e := Seen(tc.reserved<<20, tc.least<<20); e.Size != tc.want<<20 {
			t.Errorf("%+v: got %d MiB", tc, e.Size>>20)
		}
	}
}
