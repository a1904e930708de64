package kdumpfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

var writable = []kdumpfile.Codec{kdumpfile.Raw, kdumpfile.Zlib, kdumpfile.Snappy, kdumpfile.Zstd}

func TestEncodeDecode(t *testing.T) {
	for _, c := range writable {
		for _, size := range vmcore.PageSizes {
			levels := []int{0, 1, 3, 9}
			for i := 0; i < len(levels); i += race.Stride(len(levels)) {
				level := levels[i]
				e, err := kdumpfile.NewEncoder(c, level)
				if err != nil {
					t.Fatal(err)
				}
				pages := vmcoretest.Pages(1, 8, size)
				dst, got := make([]byte, 0, 100), make([]byte, size)
				for i := range 8 {
					page := pages[i*size : (i+1)*size]
					stored, flags := e.EncodePage(dst, page)
					// Every fourth page is random.
					checkStored(t, c, i%4 == 0, size, stored, flags)
					if err := kdumpfile.DecodePage(got, stored, flags); err != nil || !bytes.Equal(got, page) {
						t.Fatalf("%v level %d page %d of %d bytes: %v", c, level, i, size, err)
					}
				}
			}
		}
	}
}

// checkStored makes sure that random pages are raw and others are not.
func checkStored(t *testing.T, c kdumpfile.Codec, random bool, size int, stored []byte, flags uint32) {
	t.Helper()
	wantFlags := uint32(c)
	if random {
		wantFlags = 0
	}
	if flags != wantFlags {
		t.Fatalf("%v: flags %#x, want %#x", c, flags, wantFlags)
	}
	if flags == 0 && len(stored) != size || flags != 0 && len(stored) >= size {
		t.Fatalf("%v: flags %#x with %d of %d bytes", c, flags, len(stored), size)
	}
}

func TestLZO(t *testing.T) {
	if _, err := kdumpfile.NewEncoder(kdumpfile.LZO, 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("NewEncoder: %v", err)
	}
	if stored, flags := kdumpfile.EncodePage(make([]byte, 4096), kdumpfile.LZO); flags != 0 || len(stored) != 4096 {
		t.Errorf("EncodePage: flags %#x, %d bytes", flags, len(stored))
	}
	// A literal 'a', then a match of length 4095 and distance 1, by lzo1x's
	// instruction set (Documentation/staging/lzo.rst): 18 is a run of one literal.
	want := bytes.Repeat([]byte{'a'}, 4096)
	stored := []byte{18, 'a', 32}
	for n := 4095 - 33; ; n -= 255 {
		if n <= 255 {
			stored = append(stored, byte(n))
			break
		}
		stored = append(stored, 0)
	}
	stored = append(stored, 0, 0, 17, 0, 0)
	got := make([]byte, 4096)
	if err := kdumpfile.DecodePage(got, stored, uint32(kdumpfile.LZO)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %v", err)
	}
}

func TestDecodeOtherLengths(t *testing.T) {
	for _, c := range writable {
		for _, tc := range []struct{ stored, into int }{{65536, 4096}, {4096, 16384}, {16384, 4096}} {
			page := make([]byte, tc.stored)
			stored, flags := kdumpfile.EncodePage(page, c)
			room := bytes.Repeat([]byte{0xee}, 2*tc.into)
			err := kdumpfile.DecodePage(room[:tc.into], stored, flags)
			if !errors.Is(err, vmcore.ErrCorrupt) {
				t.Errorf("%v, %d bytes into %d: %v", c, tc.stored, tc.into, err)
			}
			if bytes.Count(room[tc.into:], []byte{0xee}) != tc.into {
				t.Errorf("%v, %d bytes into %d: wrote beyond the page", c, tc.stored, tc.into)
			}
		}
	}
}

func TestDecodeDamaged(t *testing.T) {
	page := vmcoretest.Pages(3, 2, 4096)[4096:]
	for _, c := range writable[1:] {
		stored, flags := kdumpfile.EncodePage(page, c)
		got := make([]byte, 4096)
		for n := range stored {
			if err := kdumpfile.DecodePage(got, stored[:n], flags); !errors.Is(err, vmcore.ErrCorrupt) {
				t.Errorf("%v cut to %d of %d bytes: %v", c, n, len(stored), err)
			}
		}
	}
	if err := kdumpfile.DecodePage(make([]byte, 4096), page, 0x40); !errors.Is(err, vmcore.ErrCorrupt) {
		t.Errorf("unknown codec: %v", err)
	}
}

// TestZstdFrame checks what single-shot decoders need: the content size is in the
// frame header, there is no dictionary and no checksum.
func TestZstdFrame(t *testing.T) {
	for _, size := range vmcore.PageSizes {
		stored, flags := kdumpfile.EncodePage(make([]byte, size), kdumpfile.Zstd)
		if flags != 0x20 || le.Uint32(stored) != 0xfd2fb528 {
			t.Fatalf("flags %#x, magic %x", flags, stored[:4])
		}
		// RFC 8878, 3.1.1.1.1: size flag in bits 7-6, single segment 5, checksum 2,
		// dictionary 1-0.
		d := stored[4]
		if d&0x20 == 0 || d&0x07 != 0 {
			t.Errorf("frame header descriptor %#x", d)
		}
		var got int
		switch d >> 6 {
		case 1:
			got = int(le.Uint16(stored[5:])) + 256
		case 2:
			got = int(le.Uint32(stored[5:]))
		}
		if got != size {
			t.Errorf("content size %d, want %d", got, size)
		}
	}
}

func TestCodecNames(t *testing.T) {
	for _, c := range []kdumpfile.Codec{kdumpfile.Raw, kdumpfile.Zlib, kdumpfile.LZO, kdumpfile.Snappy, kdumpfile.Zstd} {
		if got, err := kdumpfile.ParseCodec(c.String()); err != nil || got != c {
			t.Errorf("%v: got %v, %v", c, got, err)
		}
	}
	if _, err := kdumpfile.ParseCodec("lz77"); err == nil {
		t.Error("lz77 is accepted")
	}
}

func FuzzDecodePage(f *testing.F) {
	for i, page := range [][]byte{make([]byte, 4096), vmcoretest.Pages(1, 2, 4096)[4096:]} {
		for _, c := range writable {
			stored, flags := kdumpfile.EncodePage(page, c)
			f.Add(stored, flags, uint8(i))
		}
	}
	for _, name := range vmcoretest.Samples(f, "x86_64-lzo.kdump") {
		r := open(f, vmcoretest.Sample(f, name))
		for _, e := range extents(f, r) {
			stored, d, err := r.ReadStored(nil, e.Start)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(stored, d.Flags, uint8(0))
		}
	}
	f.Fuzz(func(t *testing.T, stored []byte, flags uint32, size uint8) {
		n := vmcore.PageSizes[int(size)%len(vmcore.PageSizes)]
		room := bytes.Repeat([]byte{0xee}, n+64)
		err := kdumpfile.DecodePage(room[:n:n], stored, flags)
		if bytes.Count(room[n:], []byte{0xee}) != 64 {
			t.Fatal("wrote beyond the page")
		}
		if err != nil {
			if !errors.Is(err, vmcore.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		// What decodes to a page comes back when it is encoded again.
		got := make([]byte, n)
		for _, c := range writable {
			s, fl := kdumpfile.EncodePage(room[:n], c)
			if err := kdumpfile.DecodePage(got, s, fl); err != nil || !bytes.Equal(got, room[:n]) {
				t.Fatalf("%v: %v", c, err)
			}
		}
	})
}

func BenchmarkEncodePage(b *testing.B) {
	pages := vmcoretest.Pages(1, 64, 4096)
	for _, c := range writable[1:] {
		b.Run(c.String(), func(b *testing.B) {
			e, err := kdumpfile.NewEncoder(c, 0)
			if err != nil {
				b.Fatal(err)
			}
			dst := make([]byte, 8192)
			b.SetBytes(4096)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e.EncodePage(dst, pages[i%64*4096:][:4096])
			}
		})
	}
}

func BenchmarkDecodePage(b *testing.B) {
	pages := vmcoretest.Pages(1, 64, 4096)
	for _, c := range writable[1:] {
		b.Run(fmt.Sprint(c), func(b *testing.B) {
			type rec struct {
				stored []byte
				flags  uint32
			}
			var recs []rec
			for i := range 64 {
				s, fl := kdumpfile.EncodePage(pages[i*4096:][:4096], c)
				recs = append(recs, rec{bytes.Clone(s), fl})
			}
			dst := make([]byte, 4096)
			b.SetBytes(4096)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := kdumpfile.DecodePage(dst, recs[i%64].stored, recs[i%64].flags); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
