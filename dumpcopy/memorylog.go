package dumpcopy

import (
	"context"
	"fmt"
	"io"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/protocol"
)

// maxLog bounds the log of a hostile memory. It is the limit of our own senders.
const maxLog = protocol.MaxLogBytes

// storeLog stores the log in the dump's memory and returns its panic line. A memory without a log is no error. If the log
// cannot be read to its end, storeLog stores the first part.
func (s *Source) storeLog(ctx context.Context, w *dumpdir.Writer) (line string, err error) {
	if s.kernel == nil {
		return "", nil
	}
	return StoreLog(ctx, w, func(out io.Writer) error {
		_ = s.dumpLog(ctx, out) // after an error, the log ends there
		return ctx.Err()
	})
}

// StoreLog stores the log that dump writes, and returns its panic line. It calls dump twice. It shortens a log that is too long, and
// stores none that is empty.
func StoreLog(ctx context.Context, w *dumpdir.Writer, dump func(io.Writer) error) (line string, err error) {
	var title printk.TitleScanner
	if err := dump(&title); err != nil || title.Bytes() == 0 {
		return "", err
	}
	r, pw := io.Pipe()
	short := printk.NewShortener(pw, &title, maxLog)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = pw.CloseWithError(dump(short)) // always returns nil
	}()
	defer func() { <-done }()
	defer func() { _ = r.Close() }() // ends the goroutine; always returns nil
	if err := w.StoreLog(r); err != nil {
		return "", err
	}
	return title.Line(), ctx.Err()
}

// dumpLog writes the log as text. It recovers from panics, because a bug in the reader of hostile memory must not cost the dump.
func (s *Source) dumpLog(ctx context.Context, w io.Writer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	return printk.Dump(s.kernel, printk.Until(ctx, w))
}
