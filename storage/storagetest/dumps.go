package storagetest

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/storage"
)

// machine returns a small machine whose dump has an id.
func machine(host, id string, crash time.Time) *dumpdirtest.Machine {
	m := dumpdirtest.NewMachine(7, 40, 16)
	m.Meta.Host, m.Meta.ID, m.Meta.CrashTime = host, id, crash
	return m
}

func id(prefix string) string { return prefix + strings.Repeat("0", 32-len(prefix)) }

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Receive stores a dump. If short is set, it stores only the first chunk.
func Receive(t *testing.T, s storage.Store, m *dumpdirtest.Machine, short bool) storage.Ref {
	t.Helper()
	w := begin(t, s, m)
	chunks, reason := m.Chunks, ""
	if short {
		chunks, reason = chunks[:1], "deadline"
	}
	for i := range chunks {
		if err := w.PutChunk(&chunks[i]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Seal(t.Context(), reason); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return storage.Ref{Host: m.Meta.Host, ID: m.Meta.ID}
}

// begin creates a dump with log and plan.
func begin(t *testing.T, s storage.Store, m *dumpdirtest.Machine) *dumpdir.Writer {
	t.Helper()
	w, err := s.Create(t.Context(), m.Meta)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	if err := w.StoreLog(bytes.NewReader(m.Log)); err != nil {
		t.Fatal(err)
	}
	if err := m.SetPlan(w); err != nil {
		t.Fatal(err)
	}
	return w
}

func refs(entries []storage.Entry) []string {
	out := []string{}
	for i := range entries {
		out = append(out, entries[i].String())
	}
	return out
}

func list(t *testing.T, s storage.Store, f storage.Filter) []storage.Entry {
	t.Helper()
	entries, err := s.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// bring is Receive without t.Fatal, for goroutines.
func bring(t *testing.T, s storage.Store, m *dumpdirtest.Machine) error {
	t.Helper()
	w, err := s.Create(t.Context(), m.Meta)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	if err := m.SetPlan(w); err != nil {
		return err
	}
	for i := range m.Chunks {
		if err := w.PutChunk(&m.Chunks[i]); err != nil {
			return err
		}
	}
	_, err = w.Seal(t.Context(), "")
	return err
}
