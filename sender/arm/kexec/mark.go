package kexec

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"

	"github.com/corehaul/corehaul/internal/elf64"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// kcore is the memory of the running machine as an ELF core (fs/proc/kcore.c). Each PT_LOAD of RAM has its physical address.
const kcore = "proc/kcore"

// ErrNoMemory means that /proc/kcore does not show the memory of the capture kernel: arm64 unmaps it, and lockdown may forbid it.
var ErrNoMemory = errors.New("/proc/kcore does not show this memory")

// searchStep is how much is read at a time.
const searchStep = 1 << 20

// Find looks for a text in the memory from start to end, which are physical addresses, and returns its address. It tells
// what is loaded there, which the kernel does not say itself. ok is false if the text is not there. The error is ErrNoMemory,
// or that of the file. root is / but for tests.
func Find(root string, start, end uint64, text []byte) (at uint64, ok bool, err error) {
	f, err := plainfile.Open(filepath.Join(root, kcore))
	if err != nil {
		return 0, false, errors.Join(ErrNoMemory, err)
	}
	defer func() { _ = f.Close() }() // only read
	core, err := elf64.Read(f)
	if err != nil {
		return 0, false, fmt.Errorf("/proc/kcore: %w", err)
	}
	for _, p := range core.Progs {
		if elf.ProgType(p.Type) != elf.PT_LOAD || start < p.Paddr || end < start || end-p.Paddr > p.Filesz {
			continue
		}
		if p.Off > math.MaxInt64 || p.Filesz > math.MaxInt64 {
			return 0, false, ErrNoMemory
		}
		segment := io.NewSectionReader(f, int64(p.Off), int64(p.Filesz))
		return find(segment, start-p.Paddr, end-p.Paddr, p.Paddr, text)
	}
	return 0, false, ErrNoMemory
}

// find searches a segment from the end, because kexec_file_load(2) puts what it loads there.
func find(segment io.ReaderAt, from, to, base uint64, text []byte) (at uint64, ok bool, err error) {
	buf := make([]byte, searchStep)
	for to-from >= uint64(len(text)) {
		part := buf[:min(uint64(len(buf)), to-from)]
		off := to - uint64(len(part))
		if off > math.MaxInt64 {
			return 0, false, ErrNoMemory
		}
		if _, err := segment.ReadAt(part, int64(off)); err != nil {
			return 0, false, errors.Join(ErrNoMemory, err)
		}
		if i := bytes.Index(part, text); i >= 0 {
			return base + off + uint64(i), true, nil
		}
		if off == from {
			break
		}
		to = off + uint64(len(text)) - 1 // it may lie across
	}
	return 0, false, nil
}
