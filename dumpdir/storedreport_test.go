package dumpdir_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/internal/race"
)

// someReport is a report of the dump m whose text has n bytes.
func someReport(m *dumpdir.Manifest, n int) *dumpdir.StoredReport {
	report, _ := json.Marshal(map[string]any{"title": "BUG: <it>", "text": strings.Repeat("x", n)})
	return dumpdir.NewStoredReport(m, dumpdir.ReportHead{
		Program: "corehaul 1", ReportVersion: 1, Kind: "bug", Title: "BUG: <it>\x1b[2J",
		Signatures: dumpdir.Signatures{Log: &dumpdir.Signature{ID: "0123456789abcdef", Coarse: "fedcba9876543210", Frames: []string{"bug", "f\x1b [m]"}}},
	}, report, pinned)
}

// fuzzReport reads the head of report.json alone and the whole file: the head never says something else, and what is accepted is
// written again as it was.
func fuzzReport(t *testing.T, fsys *dumpdirtest.FS) {
	t.Helper()
	h, _, herr := dumpdir.ReadReportHead(fsys, dir)
	r, err := dumpdir.ReadSideFile[dumpdir.StoredReport](fsys, dir)
	for _, err := range []error{err, herr} {
		if err != nil {
			wantKnown(t, err)
		}
	}
	if err != nil {
		return
	}
	if herr == nil && !cmp.Equal(*h, r.ReportHead) {
		t.Errorf("the head alone is %+v, with the report %+v", h, r.ReportHead)
	}
	if strings.ContainsAny(r.Title+r.Kind+r.Program, "\x1b\n") {
		t.Errorf("accepted %+v", r.ReportHead)
	}
	if dumpdir.SaveSideFile(fsys, dir, r) != nil {
		return // longer than what is read, indented
	}
	if h, size, err := dumpdir.ReadReportHead(fsys, dir); err != nil || !cmp.Equal(*h, r.ReportHead) || size == 0 {
		t.Errorf("read again: %+v, %d bytes, %v", h, size, err)
	}
}

// TestReportOf ties a report to the state of its dump: a log report to the log, another one to the seal.
func TestReportOf(t *testing.T) {
	later := pinned.Add(time.Second)
	at := func(state dumpdir.State, end *time.Time, sum string, log int64) *dumpdir.Manifest {
		return &dumpdir.Manifest{State: state, EndTime: end, SHA256: sum, Bytes: dumpdir.ByteCounts{Log: log}}
	}
	arriving, partial := at(dumpdir.StateArriving, nil, "", 10), at(dumpdir.StatePartial, &pinned, "ab", 10)
	for _, tc := range []struct {
		name             string
		of, now          *dumpdir.Manifest
		describes, ofLog bool
	}{
		{"its log", arriving, arriving, true, true},
		{"a longer log since", arriving, at(dumpdir.StateArriving, nil, "", 11), false, false},
		{"sealed since", arriving, partial, false, true},
		{"its seal", partial, partial, true, false},
		{"damaged since", partial, at(dumpdir.StateDamaged, &pinned, "ab", 10), true, false},
		{"reopened since", partial, arriving, false, false},
		{"sealed anew", partial, at(dumpdir.StateComplete, &later, "cd", 10), false, false},
		{"sealed anew with the same pages", partial, at(dumpdir.StatePartial, &later, "ab", 10), false, false},
		{"log-only", at(dumpdir.StateLogOnly, &pinned, "", 10), at(dumpdir.StateLogOnly, &pinned, "", 10), true, false},
		{"log-only, sealed by a wrong clock", at(dumpdir.StateLogOnly, nil, "", 10), at(dumpdir.StateLogOnly, nil, "", 10), true, false},
	} {
		r := someReport(tc.of, 0)
		if !r.Valid() || r.Describes(tc.now) != tc.describes || r.OfLog(tc.now) != tc.ofLog {
			t.Errorf("%s: valid %v, describes %v, of the log %v", tc.name, r.Valid(), r.Describes(tc.now), r.OfLog(tc.now))
		}
	}
}

// TestReportOfWrongSignatures: a report without a signature is better than one that nobody can read.
func TestReportOfWrongSignatures(t *testing.T) {
	const id = "0123456789abcdef"
	for _, wrong := range []dumpdir.Signature{{ID: "x", Coarse: id}, {ID: id, Coarse: id + "0"}, {ID: id, Coarse: "\x1b[2J            "}} {
		s := dumpdir.Signatures{Log: &dumpdir.Signature{ID: id, Coarse: id}, Memory: &wrong}
		r := dumpdir.NewStoredReport(&dumpdir.Manifest{}, dumpdir.ReportHead{Signatures: s}, []byte("{}"), pinned)
		if !r.Valid() || r.Signatures.Log == nil || r.Signatures.Memory != nil {
			t.Errorf("%+v: valid %v, signatures %+v", wrong, r.Valid(), r.Signatures)
		}
	}
}

// TestLongReport stores a report that no other side file may be as long as, and none that is too long.
func TestLongReport(t *testing.T) {
	if race.Enabled {
		t.Skip("one goroutine: the race detector has nothing to find")
	}
	fsys := dumpdirtest.NewFS()
	complete(t, fsys, dir, dumpdirtest.NewMachine(34, 20, 8))
	m := &dumpdir.Manifest{State: dumpdir.StateComplete, EndTime: &pinned}
	long := someReport(m, 8<<20-1024)
	if err := dumpdir.SaveSideFile(fsys, dir, long); err != nil {
		t.Fatal(err)
	}
	d, err := dumpdir.Open(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	r, err := d.Report()
	if err != nil || r.Title != "BUG: <it>?[2J" || len(r.Report) < 8<<20-1024 {
		t.Fatalf("%d bytes, %v", len(r.Report), err)
	}
	wantClean(t, verify(t, fsys, dir))
	if err := dumpdir.SaveSideFile(fsys, dir, someReport(m, 8<<20)); !errors.Is(err, dumpdir.ErrTooLong) {
		t.Errorf("a report that is too long: %v", err)
	}
	if h, _, err := dumpdir.ReadReportHead(fsys, dir); err != nil || !cmp.Equal(*h, long.ReportHead) {
		t.Errorf("the report before is lost: %+v, %v", h, err)
	}
}

// TestTornReport has a report that was cut at any byte, or changed: it counts as damage and is not shown.
func TestTornReport(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	complete(t, fsys, dir, dumpdirtest.NewMachine(35, 20, 8))
	name := path.Join(dir, dumpdir.ReportName)
	if err := dumpdir.SaveSideFile(fsys, dir, someReport(&dumpdir.Manifest{State: dumpdir.StateLogOnly}, 40)); err != nil {
		t.Fatal(err)
	}
	whole, _ := fsys.Bytes(name)
	whole = bytes.Clone(whole)
	for n := range whole {
		fsys.SetBytes(name, bytes.Clone(whole[:n]))
		if h, _, err := dumpdir.ReadReportHead(fsys, dir); h != nil || err == nil {
			t.Fatalf("cut at %d of %d: %+v, %v", n, len(whole), h, err)
		} else {
			wantKnown(t, err)
		}
	}
	for old, new := range map[string]string{
		`"version": 1`: `"version": 2`, `"of": "dump"`: `"of": "moon"`, `"title"`: `"titel"`, `"report": {`: `"raport": {`, "{": "[", `?[2J`: `\u001b[2J`,
		`f? [m]`: `f\u001b [m]`, `0123456789abcdef`: `0123456789ABCDEF`, `"coarse": "fedcba9876543210"`: `"coarse": ""`, `"frames"`: `"words"`, `"signatures"`: `"signature"`,
	} {
		fsys.SetBytes(name, bytes.Replace(whole, []byte(old), []byte(new), 1))
		if h, _, err := dumpdir.ReadReportHead(fsys, dir); h != nil || err == nil {
			t.Errorf("%s: %+v, %v", new, h, err)
		}
	}
	wantClean(t, verify(t, fsys, dir))
}

// TestReportThatIsNoFile has a link, a FIFO or a directory in the place of report.json: it is neither followed nor waited for.
func TestReportThatIsNoFile(t *testing.T) {
	for kind, put := range map[string]func(at, elsewhere string) error{
		"link":      func(at, elsewhere string) error { return os.Symlink(elsewhere, at) },
		"FIFO":      func(at, _ string) error { return unix.Mkfifo(at, 0o600) },
		"directory": func(at, _ string) error { return os.Mkdir(at, 0o700) },
		"device":    func(at, _ string) error { return os.Symlink("/dev/zero", at) },
	} {
		dir, other := t.TempDir(), t.TempDir()
		report := someReport(&dumpdir.Manifest{State: dumpdir.StateLogOnly}, 0)
		if err := dumpdir.SaveSideFile(dumpdir.OS{}, other, report); err != nil {
			t.Fatal(err)
		}
		if err := put(filepath.Join(dir, dumpdir.ReportName), filepath.Join(other, dumpdir.ReportName)); err != nil {
			t.Fatal(err)
		}
		h, _, herr := dumpdir.ReadReportHead(dumpdir.OS{}, dir)
		r, err := dumpdir.ReadSideFile[dumpdir.StoredReport](dumpdir.OS{}, dir)
		if h != nil || r != nil || herr == nil || err == nil {
			t.Errorf("%s: %+v, %v; %+v, %v", kind, h, herr, r, err)
		}
		err = dumpdir.SaveSideFile(dumpdir.OS{}, dir, report)
		if h, _, _ = dumpdir.ReadReportHead(dumpdir.OS{}, dir); (h != nil) != (err == nil) || (err != nil) != (kind == "directory") {
			t.Errorf("%s: made again: %+v, %v", kind, h, err)
		}
		if h, _, err = dumpdir.ReadReportHead(dumpdir.OS{}, other); err != nil || h == nil {
			t.Errorf("%s: what it led to is gone: %v", kind, err)
		}
	}
}
