package kdumpclients

import (
	"context"
	"fmt"
	"io"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/protocol"
)

// maxLog bounds the log out of a hostile memory; it is what our own senders send of a log.
const maxLog = protocol.MaxLogBytes

// storeLog stores the log that lies in the memory of the dump and returns its panic line. A memory without one is no error; of one
// that cannot be read to its end, what can be read is stored.
func (s *source) storeLog(ctx context.Context, w *dumpdir.Writer) (line string, err error) {
	if s.kernel == nil {
		return "", nil
	}
	var title printk.TitleScanner
	_ = s.dumpLog(ctx, &title) // what keeps it from being read is of no use to anyone
	if err := ctx.Err(); err != nil || title.Bytes() == 0 {
		return "", err
	}
	r, pw := io.Pipe()
	short := printk.NewShortener(pw, &title, maxLog)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.dumpLog(ctx, short)        // it ends where the reading does
		_ = pw.CloseWithError(ctx.Err()) // it returns nothing else
	}()
	defer func() { <-done }()
	defer func() { _ = r.Close() }() // ends the goroutine; it returns nothing else
	return title.Line(), w.StoreLog(r)
}

// dumpLog writes the log as text. A bug in what reads hostile memory must not cost the dump.
func (s *source) dumpLog(ctx context.Context, w io.Writer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	return printk.Dump(s.kernel, printk.Until(ctx, w))
}
