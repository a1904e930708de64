package dumpfile_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// countingFile counts the bytes that are read.
type countingFile struct {
	*os.File
	read int64
}

func (c *countingFile) ReadAt(p []byte, off int64) (int, error) {
	c.read += int64(len(p))
	return c.File.ReadAt(p, off)
}

func (c *countingFile) NextData(off int64) (at int64, ok bool) {
	return plainfile.NextData(c.File, off)
}

// hugeFile returns a dump of one page of a machine with 2^40 page frames, in a file of a few KiB on disk: plain, or as
// the payload of a flattened record.
func hugeFile(t *testing.T, flat bool) *countingFile {
	t.Helper()
	page := mem.Extent{Start: 1<<40 - 1, Count: 1}
	h := &kdumpfile.Header{PageSize: 4096, MaxPFN: page.End(), CurrentCPU: -1}
	l, err := h.Layout(1)
	if err != nil {
		t.Fatal(err)
	}
	front, err := h.EncodeFront(false)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "vmcore"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	start := int64(0)
	put := func(b []byte, off int64) {
		t.Helper()
		if _, err := f.WriteAt(b, start+off); err != nil {
			t.Fatal(err)
		}
	}
	end := l.FirstPage() + 4096
	if flat {
		head := append([]byte("makedumpfile\x00\x00\x00\x00"), binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 1), 1)...)
		put(head, 0)
		put(binary.BigEndian.AppendUint64(make([]byte, 8), uint64(end)), 4096)
		start = 4096 + 16
		put(bytes.Repeat([]byte{0xff}, 16), end)
	}
	put(front, 0)
	put([]byte{0x80}, l.Bitmap1+l.BitmapLen-1)
	put([]byte{0x80}, l.Bitmap2+l.BitmapLen-1)
	put(kdumpfile.PageDesc{Offset: l.FirstPage(), Size: 4096}.Append(nil, binary.LittleEndian), l.Descs)
	put(bytes.Repeat([]byte{7}, 4096), l.FirstPage())
	return &countingFile{File: f}
}

// TestHolesAreNotRead: what a file costs to read goes by the bytes that it has, and not by the page frames that it claims.
func TestHolesAreNotRead(t *testing.T) {
	for name, flat := range map[string]bool{"plain": false, "flattened": true} {
		t.Run(name, func(t *testing.T) {
			f := hugeFile(t, flat)
			st, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			img, err := dumpfile.New(f, st.Size())
			if err != nil {
				t.Fatal(err)
			}
			a, err := vmcore.AccountOf(t.Context(), img)
			if err != nil || a.Held != 1 || !a.Complete() {
				t.Errorf("%+v, %v", a, err)
			}
			got := make([]byte, 4096)
			if err := img.ReadPage(got, 1<<40-1); err != nil || got[0] != 7 {
				t.Errorf("the page: %v, %d", err, got[0])
			}
			if f.read > 4<<20 {
				t.Errorf("%d bytes were read", f.read)
			}
		})
	}
}
