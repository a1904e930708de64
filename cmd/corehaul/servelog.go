package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	slogjournal "github.com/systemd/slog-journal"

	"github.com/corehaul/corehaul/internal/printable"
)

// logger returns the log of a server. If standard error is the journal of systemd, the lines have their facts as fields too.
func (c *serveConfig) logger(a *app, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if c.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(printable.NewJSON(a.stdio.Err), opts))
	}
	text := slog.NewTextHandler(a.stdio.Err, opts)
	if f, ok := a.stdio.Err.(*os.File); !ok || !isJournal(f, os.Getenv("JOURNAL_STREAM")) {
		return slog.New(text)
	}
	journal, err := slogjournal.NewHandler(&slogjournal.Options{Level: level, ReplaceAttr: journalField, ReplaceGroup: fieldName})
	if err != nil {
		return slog.New(text)
	}
	return slog.New(newJournalHandler(journal, text))
}

// isJournal reports whether a file is the journal: $JOURNAL_STREAM has the device and the inode of the stream that systemd made
// (systemd.exec(5)).
func isJournal(f *os.File, stream string) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", sys.Dev, sys.Ino)
}

// journalPrefix begins the names of all fields, so that none is taken for one of the journal's own.
const journalPrefix = "COREHAUL_"

// journalField makes a field of an attribute. Peers and dumps have a say in values.
func journalField(_ []string, a slog.Attr) slog.Attr {
	return slog.String(fieldName(a.Key), printable.Escape(a.Value.String()))
}

// fieldName makes the name of a field: the journal takes capitals, digits and underscores.
func fieldName(key string) string {
	return journalPrefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		}
		return '_'
	}, key)
}

// journalHandler sends records to the journal. The journal shows people only the message, so that has the facts too, as a line of
// slog.TextHandler without the time, which the journal knows. A record that the journal does not take goes to instead.
type journalHandler struct {
	journal, instead slog.Handler

	line slog.Handler // writes to text
	mu   *sync.Mutex  // held while text is in use
	text *bytes.Buffer
}

func newJournalHandler(journal, instead slog.Handler) *journalHandler {
	h := &journalHandler{journal: journal, instead: instead, mu: new(sync.Mutex), text: new(bytes.Buffer)}
	h.line = slog.NewTextHandler(h.text, &slog.HandlerOptions{Level: slog.Level(math.MinInt)})
	return h
}

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.journal.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	message, err := h.format(ctx, r)
	if err != nil {
		return err
	}
	sent := slog.NewRecord(r.Time, r.Level, message, 0)
	r.Attrs(func(a slog.Attr) bool { sent.AddAttrs(a); return true })
	if err := h.journal.Handle(ctx, sent); err != nil {
		return h.instead.Handle(ctx, r)
	}
	return nil
}

// format returns the record as a line.
func (h *journalHandler) format(ctx context.Context, r slog.Record) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text.Reset()
	r.Time = time.Time{} // a TextHandler leaves that out
	err := h.line.Handle(ctx, r)
	return strings.TrimSuffix(h.text.String(), "\n"), err
}

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	other := *h
	other.journal, other.instead, other.line = h.journal.WithAttrs(attrs), h.instead.WithAttrs(attrs), h.line.WithAttrs(attrs)
	return &other
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	other := *h
	other.journal, other.instead, other.line = h.journal.WithGroup(name), h.instead.WithGroup(name), h.line.WithGroup(name)
	return &other
}
