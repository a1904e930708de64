package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/dumpdir"
)

// reportsDump is what ls says of a dump and its report.
type reportsDump struct {
	Path, Kind, Title string
	ReportOf          string `json:"report_of"`
	Manifest          struct {
		State string
		Pages struct{ Present uint64 }
	}
}

// reportsOne returns the only dump of a receiver.
func reportsOne(t *testing.T, s *judgesStore) reportsDump {
	t.Helper()
	var list struct{ Dumps []reportsDump }
	out, _ := judgesRun(t, 0, "corehaul", "ls", "--data", s.data, "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Dumps) != 1 {
		t.Fatalf("%d dumps, %v", len(list.Dumps), err)
	}
	return list.Dumps[0]
}

// TestReports stops the sender of a real panic as soon as it knows its log to be stored. ls has the title before the first page arrives. After
// the seal, the stored report is the one that "corehaul report" makes, and show and a search have it.
func TestReports(t *testing.T) {
	t.Parallel()
	s := judgesServe(t, "--idle-timeout", "20m")
	l := newLine(t, s.address(t))
	slow := l.slow(t, 100) // kB/s: the first page takes seconds
	stored := make(chan struct{})
	p := serveSend(t, func(line string) {
		if strings.Contains(line, "log stored") {
			close(stored)
		}
	}, "--to", l.target(), "--identity", s.identity, "--level", "31", failoverELF(t))
	select {
	case <-stored:
	case <-time.After(5 * time.Minute):
		t.Fatalf("the log was not stored:\n%s", p.said())
	}
	signal := func(sig os.Signal) {
		t.Helper()
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	serveWait(t, "the title", func() bool { return reportsOne(t, s).Title != "" })
	d := reportsOne(t, s)
	if d.ReportOf != dumpdir.ReportOfLog || d.Manifest.State != "arriving" || d.Manifest.Pages.Present != 0 {
		t.Errorf("before the first page: %+v", d)
	}
	title := d.Title
	signal(syscall.SIGCONT)
	l.cure(t, slow)
	if code, _ := p.wait(t); code != 0 {
		t.Fatalf("the sender ended with %d:\n%s", code, p.said())
	}
	serveWait(t, "the report of the dump", func() bool { return reportsOne(t, s).ReportOf == dumpdir.ReportOfDump })
	d = reportsOne(t, s)
	if d.Title != title || d.Title == "" || d.Kind == "" || d.Manifest.State != "complete" {
		t.Errorf("after the seal: %+v; the title of the log was %q", d, title)
	}
	wantStoredReport(t, s, d)
	logReportTime(t, d)
	for _, args := range [][]string{{"ls", "--panic", strings.ToUpper(title)}, {"show", d.Path}} {
		out, _ := judgesRun(t, 0, "corehaul", append(args, "--data", s.data)...)
		if !strings.Contains(out, title) || args[0] == "show" && !strings.Contains(out, "uptime") {
			t.Errorf("%s: %s", args[0], out)
		}
	}
	judgesRun(t, 0, "corehaul", "verify", "--data", s.data, d.Path)
	judgesRun(t, 0, "corehaul", "verify", "--data", s.data, "--all")
	if log := s.said(t); strings.Count(log, "crash report") != 2 || strings.Contains(log, "level=ERROR") {
		t.Errorf("the receiver said\n%s", log)
	}
}

// logReportTime says how long after the seal the report was there.
func logReportTime(t *testing.T, d reportsDump) {
	t.Helper()
	sealed, err := os.Stat(filepath.Join(d.Path, "SHA256SUMS"))
	report, rerr := os.Stat(filepath.Join(d.Path, dumpdir.ReportName))
	if err := errors.Join(err, rerr); err != nil {
		t.Fatal(err)
	}
	t.Logf("the report came %v after the seal", report.ModTime().Sub(sealed.ModTime()))
}

// wantStoredReport compares the report beside a dump with one that is made now.
func wantStoredReport(t *testing.T, s *judgesStore, d reportsDump) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.Path, dumpdir.ReportName))
	if err != nil {
		t.Fatal(err)
	}
	var stored struct{ Report any }
	var made any
	out, _ := judgesRun(t, 0, "corehaul", "report", "--data", s.data, "--json", d.Path)
	if err := errors.Join(json.Unmarshal(b, &stored), json.Unmarshal([]byte(out), &made)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, stored.Report); diff != "" {
		t.Errorf("the stored report differs from that of \"corehaul report\" (-made +stored):\n%s", diff)
	}
}
