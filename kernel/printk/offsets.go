package printk

import (
	"fmt"

	"github.com/corehaul/corehaul/kernel"
)

// maxStruct bounds the structures of the log. The largest one, struct printk_info, has 88 bytes.
const maxStruct = 4096

// keys reads sizes and offsets from VMCOREINFO and keeps the first error.
type keys struct {
	info kernel.VMCoreInfo
	err  error
}

func (s *keys) fail(key string) {
	if s.err == nil {
		s.err = fmt.Errorf("VMCOREINFO has no usable %s: %w", key, ErrNoLog)
	}
}

// symbol returns the address of a symbol.
func (s *keys) symbol(name string) uint64 {
	v, ok := s.info.Symbol(name)
	if !ok {
		s.fail("SYMBOL(" + name + ")")
	}
	return v
}

// size returns the size of a structure, at most maxStruct bytes.
func (s *keys) size(name string) uint64 {
	v, ok := s.info.Size(name)
	if !ok || v == 0 || v > maxStruct {
		s.fail("SIZE(" + name + ")")
		return 0
	}
	return v
}

// offset returns the offset of a member of width bytes in a structure of size bytes.
func (s *keys) offset(name string, width, size uint64) uint64 {
	v, ok := s.info.Offset(name)
	if !ok || v > size || size-v < width {
		s.fail("OFFSET(" + name + ")")
		return 0
	}
	return v
}
