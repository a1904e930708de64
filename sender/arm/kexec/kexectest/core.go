// Package kexectest makes the files of a running kernel for tests.
package kexectest

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Core makes proc/kcore below root, with memory at physical addresses, as fs/proc/kcore.c lays it out. Its first segment has no
// physical address.
func Core(t *testing.T, root string, memory map[uint64][]byte) {
	t.Helper()
	const ehdr, phdr = 64, 56
	var headers, data bytes.Buffer
	write := func(w io.Writer, v any) {
		if err := binary.Write(w, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	count := uint64(len(memory) + 1)
	at := ehdr + count*phdr
	segment := func(paddr uint64, b []byte) {
		write(&headers, []uint32{1, 7})
		write(&headers, []uint64{at + uint64(data.Len()), 0xffff888000000000 + paddr, paddr, uint64(len(b)), uint64(len(b)), 0x1000})
		data.Write(b)
	}
	segment(1<<64-1, []byte("corehaul.image=A in vmalloc"))
	for paddr, b := range memory {
		segment(paddr, b)
	}
	var file bytes.Buffer
	file.WriteString("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	write(&file, []uint16{4, 62})
	write(&file, uint32(1))
	write(&file, []uint64{0, ehdr, 0})
	write(&file, uint32(0))
	write(&file, []uint16{ehdr, phdr, uint16(count), 0, 0, 0})
	if err := os.MkdirAll(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	all := append(append(file.Bytes(), headers.Bytes()...), data.Bytes()...)
	if err := os.WriteFile(filepath.Join(root, "proc/kcore"), all, 0o600); err != nil {
		t.Fatal(err)
	}
}
