package reports_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
	"github.com/corehaul/corehaul/storage/reports"
	"github.com/corehaul/corehaul/storage/storagetest"
	"github.com/corehaul/corehaul/triage"
	"github.com/corehaul/corehaul/triage/cage"
)

// told is a store that tells of each side file that was saved or refused.
type told struct {
	storage.Store
	saved chan error
}

func (s *told) SaveSide(ctx context.Context, ref storage.Ref, f dumpdir.SideFile, as *dumpdir.Manifest) error {
	err := s.Store.SaveSide(ctx, ref, f, as)
	s.saved <- err
	return err
}

func openStore(t *testing.T) *told {
	t.Helper()
	s, err := local.Open(t.Context(), t.TempDir(), storage.OpenOptions{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &told{Store: s, saved: make(chan error, 1000)}
}

func only(t *testing.T, s storage.Store) storage.Entry {
	t.Helper()
	list, err := s.List(t.Context(), storage.Filter{})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d dumps, %v", len(list), err)
	}
	return list[0]
}

// await waits until a report was saved.
func (s *told) await(t *testing.T) {
	t.Helper()
	for err := range s.saved {
		if err == nil {
			return
		}
		if !errors.Is(err, storage.ErrChanged) {
			t.Fatal(err)
		}
	}
}

// TestLife follows a dump on a disk: its log, a seal, and its sender that comes back and ends with another seal, while the session
// still holds the dump when the hint comes.
func TestLife(t *testing.T) {
	s := openStore(t)
	_, stop := start(t, &reports.Runner{Store: s, Maker: &fakeMaker{}})
	defer stop()
	m := dumpdirtest.NewMachine(1, 60, 16)
	w, err := s.Create(t.Context(), m.Meta)
	if err != nil {
		t.Fatal(err)
	}
	ref := storage.Ref{Host: m.Meta.Host, ID: m.Meta.ID}
	if err := w.StoreLog(strings.NewReader("the log")); err != nil {
		t.Fatal(err)
	}
	s.await(t)
	e := only(t, s)
	if e.Title != "log "+e.Path || e.ReportOf != dumpdir.ReportOfLog || e.Manifest.Pages.Present != 0 {
		t.Errorf("before the first page: %q of the %s", e.Title, e.ReportOf)
	}
	if err := m.SetPlan(w); err != nil {
		t.Fatal(err)
	}
	for i, chunk := range m.Chunks[:2] {
		if i == 1 {
			if w, err = s.Resume(t.Context(), ref, storage.ResumeOptions{Reopen: true}); err != nil {
				t.Fatal(err)
			}
			s.await(t)
			if e := only(t, s); e.Title != "log "+e.Path || e.ReportOf != dumpdir.ReportOfLog {
				t.Errorf("its sender is back: %q of the %s", e.Title, e.ReportOf)
			}
		}
		if err := w.PutChunk(&chunk); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Seal(t.Context(), "cut"); err != nil {
			t.Fatal(err)
		}
		s.await(t) // the writer still holds the dump
		e := only(t, s)
		if e.Title != "dump "+e.Path || e.ReportOf != dumpdir.ReportOfDump || !e.Report.Sealed.Equal(*e.Manifest.EndTime) {
			t.Errorf("seal %d: %q of the %s", i, e.Title, e.ReportOf)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	d, err := s.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{}); err != nil || len(rep.Findings) != 0 {
		t.Errorf("verified: %+v, %v", rep, err)
	}
}

// TestInvalidReport: a report that is torn, foreign or no file is made again, with one warning.
func TestInvalidReport(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"torn":    func(path string) error { return os.Truncate(path, 100) },
		"foreign": func(path string) error { return os.WriteFile(path, []byte(`{"version": 7, "report": {}}`), 0o600) },
		"link":    func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path)) },
	} {
		s := openStore(t)
		storagetest.Receive(t, s, dumpdirtest.NewMachine(1, 60, 16), false)
		e := only(t, s)
		path := filepath.Join(e.Path, dumpdir.ReportName)
		for i := range 2 {
			log, stop := start(t, &reports.Runner{Store: s, Maker: &fakeMaker{}})
			s.await(t)
			stop()
			if n := len(log.Lines("a report is invalid")); n != i {
				t.Errorf("%s: %d warnings, want %d", name, n, i)
			}
			if e := only(t, s); e.Title != "dump "+e.Path || e.ReportError != nil {
				t.Errorf("%s: %q, %v", name, e.Title, e.ReportError)
			}
			if i == 0 {
				if err := spoil(path); err != nil {
					t.Fatal(err)
				}
				if e := only(t, s); e.Title != "" || e.ReportError == nil {
					t.Errorf("%s: shown as %q, %v", name, e.Title, e.ReportError)
				}
			}
		}
	}
}

// TestFailedRenewalKeepsTheReport: a version that cannot read a dump leaves the report of an older version, and notes that it has tried. A
// report that was of the log alone, because the older version could not read the dump either, is replaced.
func TestFailedRenewalKeepsTheReport(t *testing.T) {
	bad := &fakeMaker{err: func(string, string) error { return &cage.FailedError{Reason: "it crashed"} }}
	for _, tc := range []struct {
		name           string
		first          *fakeMaker
		program, tried string // of what is stored at last
	}{
		{"a good report", &fakeMaker{}, "corehaul v1.0.0", "corehaul v1.1.0"},
		{"a report of a failure", bad, "corehaul v1.1.0", ""},
	} {
		s := openStore(t)
		storagetest.Receive(t, s, dumpdirtest.NewMachine(1, 60, 16), false)
		var title string
		for i, m := range []*fakeMaker{tc.first, bad} {
			log, stop := start(t, &reports.Runner{Store: s, Maker: m, Program: fmt.Sprintf("corehaul v1.%d.0", i), Renewals: 60})
			s.await(t)
			stop()
			if i == 0 {
				title = only(t, s).Title
			}
			if n := len(log.Lines("level=ERROR")); n != 0 {
				t.Errorf("%s: %d errors", tc.name, n)
			}
		}
		e := only(t, s)
		if e.ReportError != nil || e.Title != title || e.Report.Program != tc.program || e.Report.Tried != tc.tried || (e.Report.Failed == "") == (tc.first == bad) {
			t.Errorf("%s: %+v, %v", tc.name, e.Report, e.ReportError)
		}
	}
}

// oneReport makes the same report of everything.
type oneReport struct{ *triage.Report }

func (m oneReport) Dump(context.Context, string) (*triage.Report, error) { return m.Report, nil }
func (m oneReport) Log(context.Context, string) (*triage.Report, error)  { return m.Report, nil }

// large is a report of a machine with CPUs and tasks that wait, all with stacks of some frames. The task that crashed is the last that waits.
func large(cpus, blocked, frames int) *triage.Report {
	stack := func(task string) triage.Backtrace {
		b := triage.Backtrace{Comm: "swapper", Task: task}
		for range frames {
			b.Frames = append(b.Frames, triage.Frame{Stack: "ffffc90000003f58", Address: "ffffffff81000000", Function: "asm_sysvec_call_function_single"})
		}
		return b
	}
	r := &triage.Report{Version: triage.Version, Sources: []string{"log", "memory"}, Kind: "hung-task", Title: "INFO: task hung", Unread: []string{"one thing"}}
	for range cpus {
		r.Backtraces = append(r.Backtraces, stack("1"))
	}
	for i := range blocked {
		task := "2"
		if i == blocked-1 {
			task = "3"
		}
		r.Blocked = append(r.Blocked, stack(task))
	}
	r.Crash.Task = "3"
	return r
}

// TestLongReports stores what fits: a report of a large machine as it is, and of others what is of the most use.
func TestLongReports(t *testing.T) {
	if race.Enabled {
		t.Skip("one goroutine, and megabytes of JSON")
	}
	for _, tc := range []struct {
		name                  string
		cpus, blocked, frames int
		unread                string // beside the first line
	}{
		{"512 CPUs", 512, 64, 25, ""},
		{"long stacks of waiting tasks", 8, 64, 1000, "of 64 stacks of waiting tasks"},
		{"2048 CPUs", 2048, 64, 25, "of 2048 stacks of CPUs"},
		{"one endless stack", 1, 1, 60000, "of 60000 frames of the longest stack"},
	} {
		s := openStore(t)
		storagetest.Receive(t, s, dumpdirtest.NewMachine(1, 60, 16), false)
		_, stop := start(t, &reports.Runner{Store: s, Maker: oneReport{large(tc.cpus, tc.blocked, tc.frames)}})
		s.await(t)
		stop()
		e := only(t, s)
		d, err := s.Open(t.Context(), e.Ref)
		if err != nil {
			t.Fatal(err)
		}
		f, err := d.Report()
		if err := errors.Join(err, d.Close()); err != nil || f == nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		var r triage.Report
		if err := json.Unmarshal(f.Report, &r); err != nil {
			t.Fatal(err)
		}
		last := r.Unread[len(r.Unread)-1]
		whole := len(r.Backtraces) == tc.cpus && len(r.Blocked) == tc.blocked && len(r.Unread) == 1
		if r.Unread[0] != "one thing" || whole != (tc.unread == "") || !strings.Contains(last, tc.unread) || r.Title != "INFO: task hung" {
			t.Errorf("%s: %d and %d stacks, %d lines, the last %q", tc.name, len(r.Backtraces), len(r.Blocked), len(r.Unread), last)
		}
		if c := r.Crashed(); c == nil || c.Task != "3" || len(c.Frames) == 0 || len(r.Backtraces) == 0 {
			t.Errorf("%s: the stack of the crashed task is missing", tc.name)
		}
		if whole != (e.ReportBytes < 7<<20 && tc.unread == "") || e.ReportBytes > 8<<20 || !whole && e.ReportBytes < 2<<20 {
			t.Errorf("%s: %d bytes", tc.name, e.ReportBytes)
		}
	}
}
