package vmcore

import (
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/mem"
)

// Errors for callers, for errors.Is. Wrapping errors name the place.
var (
	// ErrExcluded: the page is RAM but was excluded when the dump was made.
	ErrExcluded = errors.New("page excluded from the dump")
	// ErrNotPresent: there is no RAM at the address.
	ErrNotPresent = errors.New("no memory there")
	// ErrIncomplete: the page should be in the file, but never reached it.
	ErrIncomplete = errors.New("page missing from an incomplete dump")
	// ErrCorrupt: the file has an impossible value.
	ErrCorrupt = errors.New("corrupt dump")
	// ErrTruncated: the file ends before the bytes that it should have.
	ErrTruncated = errors.New("truncated dump")
	// ErrUnknownFormat: the file is no dump of a known format.
	ErrUnknownFormat = errors.New("not a vmcore: neither ELF core, kdump-compressed nor flattened")
)

// ErrPageBuffer says that a buffer does not have the length of a page, or of pages. It is a mistake of the caller.
var ErrPageBuffer = errors.New("buffer is not of the page size")

// ErrUnsupported is errors.ErrUnsupported: the file is valid, but its kind is not supported.
var ErrUnsupported = errors.ErrUnsupported

// FormatError says what is wrong with a file and where.
type FormatError struct {
	Struct string // structure or field, in the format's own words
	Off    int64  // its byte offset in the file
	Msg    string // what is wrong
	Err    error  // ErrCorrupt, ErrTruncated or ErrUnsupported
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%v: %s at offset %#x: %s", e.Err, e.Struct, e.Off, e.Msg)
}

// Unwrap returns the sentinel that e belongs to.
func (e *FormatError) Unwrap() error { return e.Err }

// Corruptf returns a FormatError that matches ErrCorrupt.
func Corruptf(structure string, off int64, format string, args ...any) error {
	return &FormatError{Struct: structure, Off: off, Msg: fmt.Sprintf(format, args...), Err: ErrCorrupt}
}

// Truncatedf returns a FormatError that matches ErrTruncated.
func Truncatedf(structure string, off int64, format string, args ...any) error {
	return &FormatError{Struct: structure, Off: off, Msg: fmt.Sprintf(format, args...), Err: ErrTruncated}
}

// Unsupportedf returns a FormatError that matches ErrUnsupported.
func Unsupportedf(structure string, off int64, format string, args ...any) error {
	return &FormatError{Struct: structure, Off: off, Msg: fmt.Sprintf(format, args...), Err: ErrUnsupported}
}

// AddrError says why physical memory could not be read at an address.
type AddrError struct {
	Addr mem.PhysAddr
	Err  error
}

func (e *AddrError) Error() string { return fmt.Sprintf("paddr %v: %v", e.Addr, e.Err) }

// Unwrap returns the cause.
func (e *AddrError) Unwrap() error { return e.Err }
