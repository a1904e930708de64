package kernel

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
)

// ErrNoUtsname says that init_uts_ns could not be found or holds no utsname.
var ErrNoUtsname = errors.New("no utsname in init_uts_ns")

// Utsname reads init_uts_ns of the system kernel. Its fields may hold any bytes but NUL.
func (k *Kernel) Utsname() (uts.Name, error) {
	ns, ok := k.cfg.Info.Symbol("init_uts_ns")
	if !ok {
		return uts.Name{}, fmt.Errorf("VMCOREINFO has no SYMBOL(init_uts_ns): %w", ErrNoUtsname)
	}
	// OFFSET(uts_namespace.name) came with 5.11 (ca4a9241cc5e) and was backported;
	// before, the name followed a reference count of 4 bytes.
	offsets := []uint64{4, 0}
	if offset, ok := k.cfg.Info.Offset("uts_namespace.name"); ok {
		offsets = []uint64{offset}
	}
	var err error
	for _, offset := range offsets {
		var u uts.Name
		if u, err = k.readUtsname(mem.VirtAddr(ns + offset)); err == nil {
			return u, nil
		}
	}
	return uts.Name{}, err
}

func (k *Kernel) readUtsname(va mem.VirtAddr) (uts.Name, error) {
	var b [6 * uts.FieldLen]byte
	if err := k.readImage(b[:], va); err != nil {
		return uts.Name{}, err
	}
	var u uts.Name
	for i, s := range u.Fields() {
		field, _, ended := bytes.Cut(b[i*uts.FieldLen:(i+1)*uts.FieldLen], []byte{0})
		if !ended {
			return uts.Name{}, fmt.Errorf("field %d at %v has no end: %w", i, va, ErrNoUtsname)
		}
		*s = string(field)
	}
	if u.Sysname != "Linux" {
		return uts.Name{}, fmt.Errorf("sysname at %v is %.64q: %w", va, u.Sysname, ErrNoUtsname)
	}
	return u, nil
}
