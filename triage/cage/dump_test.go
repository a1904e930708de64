package cage

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/triage"
)

// storedDump makes the directory of a dump, with its log and some of its chunks, none for -1.
func storedDump(t *testing.T, chunks int, seal bool) string {
	t.Helper()
	m := dumpdirtest.NewMachine(1, 64, 8)
	dir := filepath.Join(t.TempDir(), "dump")
	w, err := dumpdir.Create(dumpdir.OS{}, dir, m.Meta, dumpdir.Options{})
	if err == nil {
		err = w.StoreLog(bytes.NewReader(m.Log))
	}
	if err == nil && chunks >= 0 {
		err = m.SetPlan(w)
		for i := range min(chunks, len(m.Chunks)) {
			err = errors.Join(err, w.PutChunk(&m.Chunks[i]))
		}
	}
	if err == nil {
		_, err = w.Commit()
	}
	if err == nil && seal {
		_, err = w.Seal(t.Context(), "the line was cut")
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// inProcess makes the report of a dump without a cage.
func inProcess(t *testing.T, dir string) *triage.Report {
	t.Helper()
	d, err := dumpdir.Open(dumpdir.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	img, err := d.OpenImage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	log, err := d.OpenLog()
	if err != nil {
		t.Fatal(err)
	}
	r := triage.OfDump(triage.Open(img), log)
	if err := errors.Join(log.Close(), img.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	return r
}

const allChunks = 1000

// A report in the cage is the one that is made without it, whatever the state of the dump.
func TestDump(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{
		"complete": storedDump(t, allChunks, true), "partial": storedDump(t, 3, true), "arriving": storedDump(t, 3, false),
		"planned": storedDump(t, 0, false),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := newCage(Limits{}).Dump(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(inProcess(t, dir), got); diff != "" {
				t.Errorf("without the cage -, in it +:\n%s", diff)
			}
			if got.Kind != oops.Panic || !slices.Contains(got.Sources, triage.SourceLog) {
				t.Errorf("kind %q of %v", got.Kind, got.Sources)
			}
		})
	}
}

// What is missing or damaged is in the report, and the rest is read.
func TestUnread(t *testing.T) {
	t.Parallel()
	write := func(name, text string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	}
	remove := func(name string) func(dir string) error {
		return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
	}
	for name, tc := range map[string]struct {
		chunks int
		change func(dir string) error
		unread string
		kind   oops.Kind
	}{
		"no pages":        {-1, nil, "memory: the dump has no pages, only the log", oops.Panic},
		"no log":          {allChunks, remove(dumpdir.LogName), "the log: ", oops.Unknown},
		"another log":     {allChunks, write(dumpdir.LogName, "Kernel panic - not syncing: other\n"), "its SHA-256 differs", oops.Panic},
		"log with no end": {-1, write(dumpdir.LogName, "booting\n"), "the log shows no crash", oops.Unknown},
		"no vmcore":       {allChunks, remove(dumpdir.VMCoreName), "memory: ", oops.Panic},
		"empty vmcore":    {allChunks, write(dumpdir.VMCoreName, ""), "the kernel's memory", oops.Panic},
		"journal":         {allChunks, write(dumpdir.JournalName, "x"), "chunks is damaged", oops.Panic},
		"device as log": {allChunks, func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, dumpdir.LogName)), os.Symlink("/dev/zero", filepath.Join(dir, dumpdir.LogName)))
		}, "the stored log: ", oops.Unknown},
		"nothing": {-1, func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700))
		}, "memory: ", oops.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := storedDump(t, tc.chunks, true)
			if tc.change != nil {
				if err := tc.change(dir); err != nil {
					t.Fatal(err)
				}
			}
			r, err := newCage(Limits{}).Dump(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if r.Kind != tc.kind || !strings.Contains(strings.Join(r.Unread, "\n"), tc.unread) {
				t.Errorf("kind %q, unread %q; want %q", r.Kind, r.Unread, tc.unread)
			}
		})
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	dir := storedDump(t, -1, false)
	r, err := newCage(Limits{}).Log(t.Context(), dir)
	if err != nil || r.Kind != oops.Panic || r.Title == "" {
		t.Fatalf("got %+v, error %v", r, err)
	}
	log := filepath.Join(dir, dumpdir.LogName)
	if err := os.WriteFile(log, []byte("booting\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err = newCage(Limits{}).Log(t.Context(), dir)
	if err != nil || r.Kind != oops.Unknown || !strings.Contains(strings.Join(r.Unread, "\n"), "no crash") {
		t.Errorf("a log without a crash: %+v, error %v", r, err)
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	var f *FailedError
	if _, err = newCage(Limits{}).Log(t.Context(), dir); !errors.As(err, &f) || f.Reason != "there is no log" {
		t.Errorf("without a log: %v", err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	if err := newCage(Limits{}).Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := New("/nonexistent", Limits{}, nil).Check(t.Context()); err == nil {
		t.Error("a program that does not exist passes")
	}
}
