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
	var title printk.TitleScanner
	_ = s.dumpLog(ctx, &title) // nobody needs the error
	if err := ctx.Err(); err != nil || title.Bytes() == 0 {
		return "", err
	}
	r, pw := io.Pipe()
	short := printk.NewShortener(pw, &title, maxLog)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.dumpLog(ctx, short)        // after an error, the log ends there
		_ = pw.CloseWithError(ctx.Err()) // always returns nil
	}()
	defer func() { <-done }()
	defer func() { _ = r.Close() }() // ends the goroutine; always returns nil
	return title.Line(), w.StoreLog(r)
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
