package symbolfile

import (
	"debug/dwarf"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// File is an open file with debugging information.
type File struct {
	name     string
	data     []byte // the whole file, mapped
	elf      *elf.File
	place    place
	units    []unit      // by address; nil until they are needed
	all      bool        // units has what the roots of all compile units say, not only .debug_aranges
	whole    *dwarf.Data // all units of a kernel image; nil until one of them refers to another
	sec      map[string][]byte
	inflated uint64 // bytes of sec that are not mapped
	known    map[uint64]answer
	module   *dwarf.Data // of a module, relocated; nil until it is needed
}

// answer is what Lines returned for an address.
type answer struct {
	lines []Line
	err   error
}

// Open maps a file. It does not keep f.
func Open(f *os.File) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() <= 0 || int64(int(info.Size())) != info.Size() {
		return nil, fmt.Errorf("%s: %w", f.Name(), ErrCut)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	file := &File{name: f.Name(), data: data, sec: map[string][]byte{}, known: map[uint64]answer{}}
	err = file.guard(func() (err error) {
		file.elf, err = readELF(file, info.Size())
		return err
	})
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(data))
	}
	return file, nil
}

// Close unmaps the file.
func (f *File) Close() error { return unix.Munmap(f.data) }

// Name returns the path of the file.
func (f *File) Name() string { return f.name }

// ReadAt implements io.ReaderAt over the mapped file.
func (f *File) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// guard runs what reads the file. A panic of the packages that read ELF and DWARF is an error of the file. So is a page that is no longer
// there, because somebody shortened the file.
func (f *File) guard(read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", f.name, err)
		}
	}()
	return read()
}

// Limits of what is read into memory, in bytes.
const (
	maxInflated = 3 << 30 // of all compressed sections together. The whole .debug_info of a kernel with all drivers built in has 1 GiB
	maxModule   = 1 << 30 // of all sections of a module together
)

// section returns a section's contents, nil if there is none: mapped, or inflated.
func (f *File) section(name string) ([]byte, error) {
	if b, ok := f.sec[name]; ok {
		return b, nil
	}
	s := f.elf.Section(name)
	if s == nil || s.Type == elf.SHT_NOBITS {
		return nil, nil
	}
	b := f.data[s.Offset:][:s.FileSize]
	if s.Flags&elf.SHF_COMPRESSED != 0 {
		if s.Size > maxInflated-f.inflated {
			return nil, fmt.Errorf("section %s has %d bytes when inflated: all may have %d", name, s.Size, maxInflated)
		}
		var err error
		if b, err = s.Data(); err != nil {
			f.sec[name] = nil // it is not inflated again for each address
			return nil, fmt.Errorf("section %s: %w", name, err)
		}
		f.inflated += s.Size
	}
	f.sec[name] = b
	return b, nil
}
