// Package printk reads the kernel log out of the memory of a crashed kernel.
//
// Two formats are read: the lockless ring of 5.10 and later
// (kernel/printk/printk_ringbuffer.c in the kernel tree) and the buffer of
// variable-length records before it, struct printk_log, called struct log before
// 3.11 (kernel/printk/printk.c). The plain character buffer of kernels before 3.5
// is not. Where the members lie comes from VMCOREINFO alone.
//
// Dump prints the log as the `log` command of crash 8.0.6 does without options,
// line for line.
//
// The log is hostile input, and may have been torn by the crash: what can be read
// is given, with an error that says what could not. Memory use is some tens of KiB
// for a log of any size, and no value in the log makes the number of steps larger
// than the buffer has room for records. Functions are safe for concurrent use.
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
	Seq      uint64 // sequence number; counted from 0 in the old format, which has none
	TSNsec   uint64 // time stamp, nanoseconds since boot
	CallerID uint32 // pid of the caller, or its CPU with bit 31 set; 0 when not recorded
	Facility uint8  // syslog facility, 0 for the kernel
	Level    uint8  // syslog level, 0 (emergency) to 7 (debug)
	Flags    uint8  // LOG_NEWLINE (2), LOG_CONT (8) and others of the kernel's enum log_flags
	// Text is the message, which may hold newlines and any other byte; it has no
	// closing newline. Nil for a record without data, such as one that did not fit.
	// It is valid until the next record is asked for.
	Text []byte
}

// ErrNoLog says that VMCOREINFO does not tell where the log is.
var ErrNoLog = errors.New("kernel log not found")

var errNoSymbols = fmt.Errorf("VMCOREINFO has neither SYMBOL(prb) nor SYMBOL(log_first_idx): %w", ErrNoLog)

// CorruptError says that part of the log makes no sense.
type CorruptError struct {
	What  string       // the structure or member at fault
	Addr  mem.VirtAddr // where it lies
	Value uint64       // what stands there
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("kernel log: %s at %v makes no sense: %#x", e.What, e.Addr, e.Value)
}

// Records yields the records of the log, oldest first. A record that cannot be
// read comes as an error with an empty Record; the iteration then goes on with
// the next, if there is a way to it. Errors match ErrNoLog, or are *CorruptError or
// the reader's.
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

// Dump writes the log as text: each record with its time stamp, further lines of
// a record indented to its text, bytes that are neither printable nor space as
// dots. What can be read is written; the error tells the first thing that could
// not, or is w's, which ends the writing.
func Dump(k *kernel.Kernel, w io.Writer) error {
	out := bufio.NewWriterSize(w, 16<<10)
	var broken error
	for r, err := range Records(k) {
		if err != nil {
			if broken == nil {
				broken = err
			}
			continue
		}
		if err := writeRecord(out, &r); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return broken
}

// Until returns a writer to w that fails with the cause of ctx once that is done: it ends a Dump, which takes a
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

// writeRecord prints r as crash does. A record without data is an empty line,
// without even a time stamp.
func writeRecord(w *bufio.Writer, r *Record) error {
	if r.Text != nil {
		indent, err := fmt.Fprintf(w, "[%5d.%06d] ", r.TSNsec/nsecPerSec, r.TSNsec%nsecPerSec/1000)
		if err != nil {
			return err
		}
		writeText(w, r.Text, indent)
	}
	return w.WriteByte('\n')
}

// writeText prints a message. A bufio.Writer keeps its first error, which the end of the line returns.
func writeText(w *bufio.Writer, text []byte, indent int) {
	plain := 0 // where what is printed as it is began
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
