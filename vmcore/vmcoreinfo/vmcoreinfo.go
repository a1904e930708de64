// Package vmcoreinfo parses VMCOREINFO, the text that a Linux kernel leaves in its
// dump so that tools can read the dump without debug symbols.
//
// It is a list of lines KEY=VALUE, written by crash_save_vmcoreinfo_init and its
// architecture parts (kernel/vmcore_info.c, earlier kernel/crash_core.c;
// Documentation/admin-guide/kdump/vmcoreinfo.rst explains the keys). Keys are
// plain (OSRELEASE, PAGESIZE, CRASHTIME, KERNELOFFSET) or of the form
// SYMBOL(x), SIZE(x), OFFSET(x), LENGTH(x), NUMBER(x). Symbols and KERNELOFFSET are
// hexadecimal without prefix; sizes, offsets and lengths decimal; numbers decimal
// with sign, or hexadecimal with 0x.
//
// The text comes from a crashed machine. Parsing is safe for hostile input: its size is limited, and an invalid line
// becomes a warning and counts as absent, as on an older kernel. An Info is read-only after Parse and safe for
// concurrent use.
package vmcoreinfo

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits of Parse. The kernel's limit is VMCOREINFO_BYTES: one page, at most 64 KiB.
const (
	MaxBytes    = 1 << 20
	maxWarnings = 16
	maxQuoted   = 64 // bytes of a bad key or value repeated in a warning
)

// Errors of Parse.
var (
	ErrTooLarge = errors.New("vmcoreinfo: larger than 1 MiB")
	ErrNoText   = errors.New("vmcoreinfo: no KEY=VALUE line in it")
)

// Info is a parsed VMCOREINFO. The zero Info has no keys.
type Info struct {
	values   map[string]string
	raw      []byte
	warnings []string
}

// Parse reads the text of a VMCOREINFO note (its descriptor, with or without trailing NULs). If a key occurs twice
// with different values, Parse uses the first one and warns. The errors are ErrTooLarge and ErrNoText; then the Info
// is nil. Parse copies b.
func Parse(b []byte) (*Info, error) {
	if len(b) > MaxBytes {
		return nil, ErrTooLarge
	}
	b = bytes.Clone(bytes.TrimRight(b, "\x00"))
	info := &Info{values: make(map[string]string), raw: b}
	for line := range strings.SplitSeq(string(b), "\n") {
		info.addLine(line)
	}
	if len(info.values) == 0 {
		return nil, ErrNoText
	}
	return info, nil
}

func (i *Info) addLine(line string) {
	if line == "" {
		return
	}
	key, value, ok := strings.Cut(line, "=")
	if !ok || key == "" {
		i.warn("line %s is not KEY=VALUE", quote(line))
		return
	}
	if old, dup := i.values[key]; dup {
		if old != value {
			i.warn("key %s is there twice; using %s, not %s", quote(key), quote(old), quote(value))
		}
		return
	}
	i.values[key] = value
	if err := check(key, value); err != nil {
		i.warn("key %s: %v", quote(key), err)
	}
}

func (i *Info) warn(format string, args ...any) {
	switch {
	case len(i.warnings) < maxWarnings:
		i.warnings = append(i.warnings, "vmcoreinfo: "+fmt.Sprintf(format, args...))
	case len(i.warnings) == maxWarnings:
		i.warnings = append(i.warnings, "vmcoreinfo: more oddities not listed")
	}
}

func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "..."
	}
	return strconv.Quote(s)
}

// check returns an error if the key's accessor would refuse the value.
func check(key, value string) error {
	kind, _, ok := strings.Cut(key, "(")
	if !ok || !strings.HasSuffix(key, ")") {
		return nil
	}
	var err error
	switch kind {
	case "SYMBOL":
		_, err = strconv.ParseUint(value, 16, 64)
	case "SIZE", "OFFSET", "LENGTH":
		_, err = parseSize(value)
	case "NUMBER":
		_, err = parseNumber(value)
	}
	return err
}

// Symbol returns the virtual address of kernel symbol name.
func (i *Info) Symbol(name string) (uint64, bool) {
	return i.Hex("SYMBOL(" + name + ")")
}

// Size returns the size in bytes of structure name, e.g. "page".
func (i *Info) Size(name string) (uint64, bool) { return i.size("SIZE(" + name + ")") }

// Offset returns the byte offset of a member, e.g. "page.flags".
func (i *Info) Offset(name string) (uint64, bool) { return i.size("OFFSET(" + name + ")") }

// Length returns the number of elements of an array, e.g. "mem_section".
func (i *Info) Length(name string) (uint64, bool) { return i.size("LENGTH(" + name + ")") }

// Number returns the value of NUMBER(name). Hexadecimal values above 1<<63 - 1
// (addresses) come back as the int64 of the same bits.
func (i *Info) Number(name string) (int64, bool) {
	v, ok := i.values["NUMBER("+name+")"]
	if !ok {
		return 0, false
	}
	n, err := parseNumber(v)
	return n, err == nil
}

// String returns the unchanged value of a key, e.g. "OSRELEASE", "BUILD-ID".
func (i *Info) String(key string) (string, bool) {
	v, ok := i.values[key]
	return v, ok
}

// Hex returns the value of a key that is hexadecimal without prefix, such as KERNELOFFSET.
func (i *Info) Hex(key string) (uint64, bool) {
	v, ok := i.values[key]
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 16, 64)
	return n, err == nil
}

// PageSize returns PAGESIZE in bytes if it is a power of two from 4096 to 65536.
func (i *Info) PageSize() (int, bool) {
	n, ok := i.size("PAGESIZE")
	if !ok || n < 4096 || n > 65536 || n&(n-1) != 0 {
		return 0, false
	}
	return int(n), true
}

// CrashTime returns when the system kernel crashed, by its own clock.
func (i *Info) CrashTime() (time.Time, bool) {
	v, ok := i.values["CRASHTIME"]
	if !ok {
		return time.Time{}, false
	}
	sec, err := strconv.ParseInt(v, 10, 64)
	if err != nil || sec < 0 || sec > maxUnixSec {
		return time.Time{}, false
	}
	return time.Unix(sec, 0).UTC(), true
}

// maxUnixSec is the end of the year 9999: RFC 3339 cannot express a later time.
const maxUnixSec = 253402300799

// Raw returns the parsed text without trailing NULs. It must not be changed.
func (i *Info) Raw() []byte { return i.raw }

// Warnings returns the lines that Parse ignored, one warning each.
func (i *Info) Warnings() []string { return i.warnings }

func (i *Info) size(key string) (uint64, bool) {
	v, ok := i.values[key]
	if !ok {
		return 0, false
	}
	n, err := parseSize(v)
	return n, err == nil
}

// maxSize is above any size, offset or array length of a kernel structure. Larger values could overflow in callers.
const maxSize = 1 << 40

func parseSize(v string) (uint64, error) {
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, err
	}
	if n > maxSize {
		return 0, fmt.Errorf("%d is absurd", n)
	}
	return n, nil
}

func parseNumber(v string) (int64, error) {
	if hex, ok := strings.CutPrefix(v, "0x"); ok {
		n, err := strconv.ParseUint(hex, 16, 64)
		return int64(n), err //nolint:gosec // the same bits, as documented
	}
	return strconv.ParseInt(v, 10, 64)
}
