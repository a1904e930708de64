// Package printk reads the kernel log from the memory of a crashed kernel.
//
// It reads two formats: the lockless ring since 5.10 (kernel/printk/printk_ringbuffer.c in the kernel tree), and the
// buffer of variable-length records before (struct printk_log, before 3.11 struct log, kernel/printk/printk.c). It
// does not read the character buffer of kernels before 3.5. The offsets of members come from VMCOREINFO alone.
//
// Dump prints the log line for line as the `log` command of crash 8.0.6 without options.
//
// The log is hostile input, and the crash may have torn it: the package returns what it can read, with an error for
// the rest. It needs some tens of KiB of memory for a log of any size. The number of steps is bounded by the number
// of records that the buffer has room for. Functions are safe for concurrent use.
package printk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// Record is one record of the kernel log.
type Record struct {
	Seq      uint64 // sequence number; in the old format, counted from 0
	TSNsec   uint64 // time stamp, nanoseconds since boot
	CallerID uint32 // pid of the caller, or its CPU with bit 31 set; 0 when not recorded
	Facility uint8  // syslog facility, 0 for the kernel
	Level    uint8  // syslog level, 0 (emergency) to 7 (debug)
	Flags    uint8  // LOG_NEWLINE (2), LOG_CONT (8) and others of the kernel's enum log_flags
	// Text is the message, which may hold newlines and any other byte, without a final newline. It is nil for a
	// record without data, such as one that did not fit. It is valid until the next record.
	Text []byte
}

// ErrNoLog says that VMCOREINFO does not name the log.
var ErrNoLog = errors.New("kernel log not found")

var errNoSymbols = fmt.Errorf("VMCOREINFO has neither SYMBOL(prb) nor SYMBOL(log_first_idx): %w", ErrNoLog)

// CorruptError says that a part of the log is invalid.
type CorruptError struct {
	What  string       // the invalid structure or member
	Addr  mem.VirtAddr // its address
	Value uint64       // its value
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("kernel log: %s at %v makes no sense: %#x", e.What, e.Addr, e.Value)
}

// Records yields the records of the log, oldest first. A record that cannot be read is an error with an empty Record.
// The iteration continues with the next record if it can be found. Errors match ErrNoLog, or are *CorruptError or the
// reader's.
func Records(k *kernel.Kernel) iter.Seq2[Record, error] {
	info := k.Info()
	if _, ok := info.Symbol("prb"); ok {
		return ringRecords(k)
	}
	if _, ok := info.Symbol("log_first_idx"); ok {
		return logRecords(k)
	}
	return func(yield func(Record, error) bool) {
		yield(Record{}, errNoSymbols)
	}
}

// Dump writes the log as text: each record with its time stamp, its further lines indented, and a dot for each byte
// that is neither printable nor space. It writes everything that it can read. The error is the first one that it met;
// an error of w ends the writing.
func Dump(k *kernel.Kernel, w io.Writer) error { return DumpAs(k, w, Style{}) }

// Style chooses records and how they are written. The zero Style is that of Dump.
type Style struct {
	Keep  func(r *Record) bool   // nil keeps all
	Stamp func(r *Record) string // what stands before a text; nil is the time stamp of Dump
}

// DumpAs is Dump with a style.
func DumpAs(k *kernel.Kernel, w io.Writer, style Style) error {
	if style.Stamp == nil {
		style.Stamp = Stamp
	}
	out := bufio.NewWriterSize(w, 16<<10)
	var broken error
	for r, err := range Records(k) {
		if err != nil {
			if broken == nil {
				broken = err
			}
			continue
		}
		if style.Keep != nil && !style.Keep(&r) {
			continue
		}
		if err := writeRecord(out, &r, style.Stamp); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return broken
}

// Until returns a writer to w that fails with the cause of ctx when that is done. It ends a Dump, which takes a
// minute for a log of 2 GiB.
func Until(ctx context.Context, w io.Writer) io.Writer { return &until{ctx, w} }

type until struct {
	ctx context.Context //nolint:containedctx // it outlives no Dump
	w   io.Writer
}

func (u *until) Write(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.w.Write(p)
}

const nsecPerSec = 1e9

// Stamp is the time stamp of a record as crash and dmesg print it: seconds since boot, and a space.
func Stamp(r *Record) string {
	return fmt.Sprintf("[%5d.%06d] ", r.TSNsec/nsecPerSec, r.TSNsec%nsecPerSec/1000)
}

// writeRecord prints r as crash does. A record without data is an empty line without a time stamp.
func writeRecord(w *bufio.Writer, r *Record, stamp func(*Record) string) error {
	if r.Text != nil {
		before := stamp(r)
		if _, err := w.WriteString(before); err != nil {
			return err
		}
		writeText(w, r.Text, len(before))
	}
	return w.WriteByte('\n')
}

// writeText prints a message. A bufio.Writer keeps its first error; writeRecord returns it with the line end.
func writeText(w *bufio.Writer, text []byte, indent int) {
	plain := 0 // start of the bytes that are printed unchanged
	for i, c := range text {
		if c >= ' ' && c <= '~' || c >= '\t' && c <= '\r' && c != '\n' { // isprint, isspace
			continue
		}
		_, _ = w.Write(text[plain:i])
		plain = i + 1
		if c != '\n' {
			_ = w.WriteByte('.')
			continue
		}
		_ = w.WriteByte('\n')
		_, _ = w.WriteString(spaces[:min(indent, len(spaces))])
	}
	_, _ = w.Write(text[plain:])
}

// spaces are more than a time stamp takes: 20 digits of seconds, 6 behind the point.
const spaces = "                                                                "
