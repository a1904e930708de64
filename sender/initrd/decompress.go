package initrd

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/corehaul/corehaul/internal/elf64"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// maxModule bounds one unpacked module. Debian's largest are graphics drivers of 20 MiB, some hundred with debug
// information.
const maxModule = 1 << 30

// readModule returns the unpacked contents of a module file, so that the capture kernel need not unpack it.
func readModule(file string) ([]byte, error) { return readPacked(file, path.Ext(file)) }

// readPacked returns the unpacked contents of a file. suffix names its compression.
func readPacked(file, suffix string) ([]byte, error) {
	f, err := plainfile.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r, done, err := unpacker(suffix, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer done()
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(data) > maxModule {
		return nil, fmt.Errorf("%s: unpacks to more than %d bytes", file, maxModule)
	}
	return data, nil
}

// unpacker chooses the decompressor by suffix, as kmod does.
func unpacker(suffix string, r io.Reader) (io.Reader, func(), error) {
	nothing := func() {}
	switch suffix {
	case ".xz":
		x, err := xz.NewReader(r)
		return x, nothing, err
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nothing, err
		}
		return z, z.Close, nil
	case ".gz":
		z, err := gzip.NewReader(r)
		return z, nothing, err
	default:
		return r, nothing, nil
	}
}

// unpackedPath returns the path of a module without its compression suffix.
func unpackedPath(p string) string {
	if ext := path.Ext(p); ext != ".ko" {
		return strings.TrimSuffix(p, ext)
	}
	return p
}

// machineOf returns the machine of an ELF file and whether it asks for a dynamic
// linker.
func machineOf(data []byte) (m elf.Machine, dynamic bool, err error) {
	f, err := elf64.Read(bytes.NewReader(data))
	if err != nil {
		return 0, false, err
	}
	for _, p := range f.Progs {
		if elf.ProgType(p.Type) == elf.PT_INTERP {
			dynamic = true
		}
	}
	return f.Machine, dynamic, nil
}

// checkInit returns the machine of a program, or why it cannot be the first process of a capture kernel.
func checkInit(name string, data []byte) (elf.Machine, error) {
	m, dynamic, err := machineOf(data)
	switch {
	case err != nil:
		return 0, fmt.Errorf("init %s: %w", name, err)
	case dynamic:
		return 0, fmt.Errorf("init %s is linked dynamically and cannot run alone: build it with CGO_ENABLED=0", name)
	case m != elf.EM_X86_64 && m != elf.EM_AARCH64:
		return 0, fmt.Errorf("init %s is for %v: %w", name, m, errors.ErrUnsupported)
	}
	return m, nil
}
