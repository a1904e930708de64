package local_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
)

// sightings returns all, in pages of one dump.
func sightings(t *testing.T, s *local.Store) (all []storage.Sighting) {
	t.Helper()
	var after *storage.Sighting
	for {
		page, err := s.Sightings(t.Context(), after, 1)
		if err != nil || len(page) > 1 {
			t.Fatalf("%d dumps, %v", len(page), err)
		}
		if len(page) == 0 {
			return all
		}
		all, after = append(all, page[0]), &page[0]
	}
}

// TestSightings: the index knows the signatures of reports, and the directories give the same without it. A dump that a person removed is
// not there.
func TestSightings(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storage.OpenOptions{})
	for i, digit := range []string{"a", "b", "c"} {
		m := dumpdirtest.NewMachine(uint64(i), 40, 16)
		m.Meta.ID = strings.Repeat(digit, 32)
		m.Meta.CrashTime = m.Meta.CrashTime.Add(time.Duration(i) * time.Hour)
		bring(t, m, s.Create)
	}
	entries := wantListed(t, s, 3)
	sig := &dumpdir.Signature{ID: "00000000000000aa", Coarse: "00000000000000cc"}
	f := dumpdir.NewStoredReport(&entries[0].Manifest, dumpdir.ReportHead{Title: "BUG: x", Signatures: dumpdir.Signatures{Log: sig}}, []byte("{}"), time.Now())
	if err := s.SaveSide(t.Context(), entries[0].Ref, f, &entries[0].Manifest); err != nil {
		t.Fatal(err)
	}
	var want []storage.Sighting
	for _, e := range wantListed(t, s, 3) {
		want = append(want, e.Sighting())
	}
	if want[0].Signature != sig.ID || want[0].Title != "BUG: x" {
		t.Fatalf("%+v", want[0])
	}
	if diff := cmp.Diff(want, sightings(t, s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := os.RemoveAll(entries[1].Path); err != nil {
		t.Fatal(err)
	}
	want = []storage.Sighting{want[0], want[2]}
	if diff := cmp.Diff(want, sightings(t, s)); diff != "" {
		t.Errorf("without one (-want +got):\n%s", diff)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "index.db"), filepath.Join(dir, "gone.db")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, sightings(t, open(t, dir, storage.OpenOptions{ReadOnly: true}))); diff != "" {
		t.Errorf("without index (-want +got):\n%s", diff)
	}
}

// TestSightingsReadDirectoriesOnce: the clock was set back, so the directory of a host has a time to come, and its names are not cached.
func TestSightingsReadDirectoriesOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storage.OpenOptions{})
	const dumps = 5
	host := ""
	for i := range dumps {
		host = receive(t, s, uint64(i+1)).Host
	}
	if err := os.Chtimes(filepath.Join(dir, "dumps", host), time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	count := &readCounter{FS: dumpdir.OS{}, of: host}
	s.SetFS(count)
	page, err := s.Sightings(t.Context(), nil, dumps)
	if err != nil || len(page) != dumps {
		t.Fatalf("%d dumps, %v", len(page), err)
	}
	if got := count.reads.Load(); got != 1 {
		t.Errorf("the directory was read %d times, want once", got)
	}
}
