package kernel

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/mem"
)

// utsField is the length of each of the six fields of struct new_utsname with
// its closing NUL (__NEW_UTS_LEN + 1, include/uapi/linux/utsname.h).
const utsField = 65

// Utsname is the kernel's own name, as uname(2) gives it. The fields are bytes of
// the crashed machine: they may hold anything but NUL, at most 64 bytes each.
type Utsname struct {
	Sysname, Nodename, Release, Version, Machine, Domainname string
}

// ErrNoUtsname says that init_uts_ns could not be found or holds no utsname.
var ErrNoUtsname = errors.New("no utsname in init_uts_ns")

// Utsname reads the name of the system kernel out of init_uts_ns.
func (k *Kernel) Utsname() (Utsname, error) {
	ns, ok := k.cfg.Info.Symbol("init_uts_ns")
	if !ok {
		return Utsname{}, fmt.Errorf("VMCOREINFO has no SYMBOL(init_uts_ns): %w", ErrNoUtsname)
	}
	// OFFSET(uts_namespace.name) came with 5.11 (ca4a9241cc5e) and was backported;
	// before, the name followed a reference count of 4 bytes.
	offsets := []uint64{4, 0}
	if offset, ok := k.cfg.Info.Offset("uts_namespace.name"); ok {
		offsets = []uint64{offset}
	}
	var err error
	for _, offset := range offsets {
		var u Utsname
		if u, err = k.readUtsname(mem.VirtAddr(ns + offset)); err == nil {
			return u, nil
		}
	}
	return Utsname{}, err
}

func (k *Kernel) readUtsname(va mem.VirtAddr) (Utsname, error) {
	var b [6 * utsField]byte
	if err := k.readImage(b[:], va); err != nil {
		return Utsname{}, err
	}
	var u Utsname
	for i, s := range []*string{&u.Sysname, &u.Nodename, &u.Release, &u.Version, &u.Machine, &u.Domainname} {
		field, _, ended := bytes.Cut(b[i*utsField:(i+1)*utsField], []byte{0})
		if !ended {
			return Utsname{}, fmt.Errorf("field %d at %v has no end: %w", i, va, ErrNoUtsname)
		}
		*s = string(field)
	}
	if u.Sysname != "Linux" {
		return Utsname{}, fmt.Errorf("sysname at %v is %.64q: %w", va, u.Sysname, ErrNoUtsname)
	}
	return u, nil
}
