// Package types knows the types of a crashed kernel: sizes, offsets of members and values of enumerations, from the BTF
// that the kernel carries in its own memory (CONFIG_DEBUG_INFO_BTF, since 5.2), without those of its modules.
//
// The format is that of Documentation/bpf/btf.rst in the kernel tree. github.com/cilium/ebpf/btf decodes it. Kernels
// without BTF (RHEL before 8.2, many kernels that people build) have only the offsets of their VMCOREINFO: for them Load
// fails with ErrNoBTF. BTF knows no variables of the kernel except per-CPU ones, and no code.
//
// BTF is hostile input. Before it is decoded, the package checks every record, bounds the memory that decoding can take,
// and cuts what nobody asks for: pointers lose their targets, and functions their types, so the type of a pointer's target
// is found by its name only. A Types is safe for concurrent use.
package types

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"runtime/debug"

	"github.com/cilium/ebpf/btf"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

var (
	// ErrNoBTF says that the kernel has no BTF, or that it cannot be found.
	ErrNoBTF = errors.New("kernel has no BTF")
	// ErrNotFound is what all errors match that say that the kernel has no such type, member or enumerator.
	ErrNotFound = errors.New("not in this kernel")
)

// Symbols finds symbols of the kernel image.
type Symbols interface {
	// Address returns the address of the symbol with a name.
	Address(name string) (mem.VirtAddr, bool)
}

// Types are the types of one kernel.
type Types struct{ spec *btf.Spec }

// Load reads the BTF of the kernel image, which lies between the symbols __start_BTF and __stop_BTF
// (include/asm-generic/vmlinux.lds.h). It looks for it if the kernel's symbols are those of code alone.
func Load(k *kernel.Kernel, symbols Symbols) (*Types, error) {
	start, ok := symbols.Address("__start_BTF")
	stop, ok2 := symbols.Address("__stop_BTF")
	if ok && ok2 {
		return loadAt(k, start, uint64(stop-start))
	}
	if start, size, ok := search(k, symbols); ok {
		return loadAt(k, start, size)
	}
	return nil, fmt.Errorf("no symbol __start_BTF or __stop_BTF: %w", ErrNoBTF)
}

// loadAt reads size bytes of BTF at va.
func loadAt(k *kernel.Kernel, va mem.VirtAddr, size uint64) (*Types, error) {
	if size == 0 || size > maxBlob {
		return nil, fmt.Errorf("BTF of %d bytes at %v: want 1 to %d: %w", size, va, maxBlob, ErrNoBTF)
	}
	blob := make([]byte, size)
	if err := k.ReadVirt(blob, va); err != nil {
		return nil, fmt.Errorf("BTF at %v: %w", va, err)
	}
	return Parse(blob)
}

// Parse decodes BTF, which it changes.
func Parse(blob []byte) (t *Types, err error) {
	defer recoverInto(&err)
	if err := trim(blob); err != nil {
		return nil, err
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(blob))
	if err != nil {
		return nil, fmt.Errorf("BTF: %w", err)
	}
	return &Types{spec: spec}, nil
}

// Size returns the size in bytes of a structure, union, enumeration or typedef with a name, without "struct" before it.
// The error matches ErrNotFound if there is none.
func (t *Types) Size(name string) (size uint64, err error) {
	defer recoverInto(&err)
	list, err := t.named(name)
	if err != nil {
		return 0, err
	}
	for _, typ := range list {
		var n uint64
		if n, err = sizeOf(typ); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("size of %s: %w", name, err)
}

// Enum returns the value of an enumerator of a named enumeration. Values of unsigned enumerations above the largest int64
// come as their bit pattern.
func (t *Types) Enum(enum, enumerator string) (value int64, err error) {
	defer recoverInto(&err)
	list, err := t.named(enum)
	if err != nil {
		return 0, err
	}
	for _, typ := range list {
		e, ok := btf.As[*btf.Enum](typ)
		if !ok {
			continue
		}
		for _, v := range e.Values {
			if v.Name == enumerator {
				return int64(v.Value), nil //nolint:gosec // the same bits
			}
		}
	}
	return 0, fmt.Errorf("enum %s has no %s: %w", enum, enumerator, ErrNotFound)
}

// named returns the types with a name, with the oldest first.
func (t *Types) named(name string) ([]btf.Type, error) {
	list, err := t.spec.AnyTypesByName(name)
	if err != nil && !errors.Is(err, btf.ErrNotFound) {
		return nil, fmt.Errorf("type %s: %w", name, err)
	}
	if name == "" || len(list) == 0 {
		return nil, fmt.Errorf("type %q: %w", name, ErrNotFound)
	}
	return list, nil
}

func sizeOf(typ btf.Type) (uint64, error) {
	n, err := btf.Sizeof(typ)
	if err != nil {
		return 0, err
	}
	if n < 0 || n > math.MaxInt32 {
		return 0, fmt.Errorf("size %d", n)
	}
	return uint64(n), nil
}

// recoverInto makes an error of a panic of the decoder, so that a kernel with odd BTF is one without.
func recoverInto(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("BTF: internal error: %v\n%s", p, debug.Stack())
	}
}
