package storagetest

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

func report(m *dumpdir.Manifest, title string) *dumpdir.StoredReport {
	s := dumpdir.Signatures{Log: &dumpdir.Signature{ID: "0123456789abcdef", Coarse: "0123456789abcdee", Frames: []string{"bug", title}}}
	return dumpdir.NewStoredReport(m, dumpdir.ReportHead{Program: "test", Kind: "bug", Title: title, Signatures: s}, []byte(`{"n": 1}`), time.Now())
}

// wantTitles looks for the titles of all dumps in a store, and in what every kind of call returns.
func wantTitles(t *testing.T, s storage.Store, title, of string) {
	t.Helper()
	for _, e := range list(t, s, storage.Filter{}) {
		found, err := s.Find(t.Context(), e.String())
		if err != nil || e.Title != title || e.ReportOf != of || found.Title != title || (e.Kind != "") != (of != "") || (of != "") && e.ReportBytes == 0 {
			t.Errorf("listed with %q of the %s, found with %q (%v), want %q of the %s", e.Title, e.ReportOf, found.Title, err, title, of)
		}
		for _, s := range []*dumpdir.Signature{e.Signature(), found.Signature()} {
			if (s != nil) != (of != "") || s != nil && s.Frames[1] != title {
				t.Errorf("signature %+v, want that of %q", s, title)
			}
		}
	}
}

// wantSearch looks for dumps by a text of their title or panic line.
func wantSearch(t *testing.T, s storage.Store, text string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), refs(list(t, s, storage.Filter{Panic: storage.Patterns{text}}))); diff != "" {
		t.Errorf("search for %q (-want +got):\n%s", text, diff)
	}
}

// testReport: the title of a report is listed and found while the report is of the seal of its dump.
func testReport(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	m := machine("node1", id("a"), day)
	ref := Receive(t, s, m, true)
	first := manifest(t, s, ref)
	save := func(title string, as *dumpdir.Manifest) error {
		return open().SaveSide(t.Context(), ref, report(as, title), as)
	}
	wantTitles(t, s, "", "")
	reported, cancel := s.Subscribe(storage.Reported)
	defer cancel()
	if err := s.SaveSide(t.Context(), ref, report(first, "told"), first); err != nil {
		t.Fatal(err)
	}
	if got := <-reported; got != ref {
		t.Errorf("told of a report of %v", got)
	}
	wantTitles(t, s, "told", dumpdir.ReportOfDump)
	for _, title := range []string{"KASAN: Use-After-Free in foo", "BUG: 100%_x"} {
		if err := save(title, first); err != nil {
			t.Fatal(err)
		}
		for _, s := range []storage.Store{s, open()} {
			wantTitles(t, s, title, dumpdir.ReportOfDump)
		}
	}
	for range 2 { // before and after the index is made again
		wantSearch(t, s, "use-AFTER")
		wantSearch(t, s, "100%_X", ref.String())
		wantSearch(t, s, "nothing")
		wantSearch(t, s, m.Meta.PanicLine, ref.String())
		if _, err := s.Reindex(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before := list(t, s, storage.Filter{})[0]
	if want := uint64(before.Manifest.Bytes.VMCore+before.Manifest.Bytes.Log) + before.ReportBytes; before.Bytes() != want {
		t.Errorf("uses %d bytes, want %d", before.Bytes(), want)
	}
	checkVerifies(t, s, ref)

	w, err := s.Resume(t.Context(), ref, storage.ResumeOptions{Reopen: true})
	if err != nil {
		t.Fatal(err)
	}
	wantTitles(t, s, "", "")
	if err := save("late", first); !errors.Is(err, storage.ErrChanged) {
		t.Errorf("report of a dump that arrives: %v", err)
	}
	if err := w.PutChunk(&m.Chunks[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Seal(t.Context(), "cut again"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantTitles(t, s, "", "")
	wantSearch(t, s, "100%")
	if err := save("late", first); !errors.Is(err, storage.ErrChanged) {
		t.Errorf("report of an earlier seal: %v", err)
	}
	if err := save("of the new seal", manifest(t, s, ref)); err != nil {
		t.Error(err)
	}
	wantTitles(t, s, "of the new seal", dumpdir.ReportOfDump)
	if err := s.RemoveSide(t.Context(), ref, dumpdir.ReportName); err != nil {
		t.Error(err)
	}
	wantTitles(t, s, "", "")
	wantSearch(t, s, "of the new seal")
	if err := s.Remove(t.Context(), ref, storage.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := save("gone", first); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("report of a dump that is gone: %v", err)
	}
}

// testReportOfLog: the title of the log is listed from the first moment, whatever the writer stores meanwhile, until there is one of the seal.
func testReportOfLog(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	m := machine("node1", id("a"), day)
	ref := storage.Ref{Host: "node1", ID: id("a")}
	w := begin(t, s, m)
	as := manifest(t, s, ref)
	if err := open().SaveSide(t.Context(), ref, report(as, "of the log"), nil); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return nil },
		func() error { return w.UpdateMeta(func(meta *dumpdir.Meta) { meta.PanicLine = "panic!" }) },
		func() error { return w.PutChunk(&m.Chunks[0]) },
		func() error { _, err := w.Seal(t.Context(), "cut"); return errors.Join(err, w.Close()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		for _, s := range []storage.Store{s, open()} {
			wantTitles(t, s, "of the log", dumpdir.ReportOfLog)
			wantSearch(t, s, "OF THE LOG", ref.String())
		}
	}
	as = manifest(t, s, ref)
	if err := s.SaveSide(t.Context(), ref, report(as, "of all"), as); err != nil {
		t.Fatal(err)
	}
	wantTitles(t, s, "of all", dumpdir.ReportOfDump)
	wantSearch(t, s, "of the log")
}

// testPromotedIsTold: subscribers hear of a dump that takes the place of another, with the event of its state. It has no report yet.
func testPromotedIsTold(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	m := machine("node1", id("a"), day)
	ref := Receive(t, s, m, true)
	as := manifest(t, s, ref)
	if err := s.SaveSide(t.Context(), ref, report(as, "of the old one"), as); err != nil {
		t.Fatal(err)
	}
	w := challenge(t, s, otherPlan(m), 2)
	if _, err := w.Seal(t.Context(), "cut"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sealed, cancel := s.Subscribe(storage.Sealed)
	defer cancel()
	if err := s.Challengers().Promote(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if len(sealed) != 1 || <-sealed != ref {
		t.Error("nobody was told")
	}
	wantTitles(t, s, "", "")
	wantSearch(t, s, "of the old one")
}
