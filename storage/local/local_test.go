package local_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
	"github.com/corehaul/corehaul/storage/storagetest"
)

func open(t *testing.T, dir string, opts storage.OpenOptions) *local.Store {
	t.Helper()
	opts.Log = slog.New(slog.DiscardHandler)
	s, err := local.Open(t.Context(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) func() storage.Store {
		t.Helper()
		dir := t.TempDir()
		return func() storage.Store { return open(t, dir, storage.OpenOptions{}) }
	})
}

// receive stores a complete dump.
func receive(t *testing.T, s *local.Store, seed uint64) storage.Ref {
	t.Helper()
	m := dumpdirtest.NewMachine(seed, 40, 16)
	m.Meta.CrashTime = m.Meta.CrashTime.Add(time.Duration(seed) * time.Hour)
	bring(t, m, s.Create)
	return storage.Ref{Host: m.Meta.Host, ID: m.Meta.ID}
}

func wantListed(t *testing.T, s *local.Store, n int) []storage.Entry {
	t.Helper()
	got, err := s.List(t.Context(), storage.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != n {
		t.Fatalf("%d dumps listed, want %d", len(got), n)
	}
	return got
}

func TestDirectoryName(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storage.OpenOptions{})
	receive(t, s, 1)
	want := filepath.Join(dir, "dumps", "node1", "20231114T231320Z-00000000")
	if got := wantListed(t, s, 1)[0].Path; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	m := dumpdirtest.NewMachine(99, 10, 16)
	m.Meta.CrashTime = m.Meta.CrashTime.Add(time.Hour) // the same second, and the id begins alike
	w, err := s.Create(t.Context(), m.Meta)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(w.Dir()) != "20231114T231320Z-"+m.Meta.ID {
		t.Errorf("second dump in %s", w.Dir())
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantListed(t, s, 2)
}

func TestIndexIsMadeAgain(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, path string)
	}{
		{"deleted", func(t *testing.T, path string) {
			t.Helper()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}},
		{"not a database", func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(strings.Repeat("garbage ", 4096)), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"pages overwritten", func(t *testing.T, path string) {
			t.Helper()
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := 100; i < len(b); i++ {
				b[i] = byte(i)
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"truncated", func(t *testing.T, path string) {
			t.Helper()
			if err := os.Truncate(path, 5000); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, storage.OpenOptions{})
			receive(t, s, 1)
			receive(t, s, 2)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			tc.spoil(t, filepath.Join(dir, "index.db"))
			s = open(t, dir, storage.OpenOptions{})
			wantListed(t, s, 2)
			receive(t, s, 3)
			wantListed(t, s, 3)
		})
	}
}

func TestIndexDeletedUnderARunningStore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storage.OpenOptions{})
	receive(t, s, 1)
	for _, name := range []string{"index.db", "index.db-wal", "index.db-shm"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	receive(t, s, 2)
	wantListed(t, s, 2)
	wantListed(t, open(t, dir, storage.OpenOptions{}), 2)
}

func TestDataDirectoryMoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	s := open(t, dir, storage.OpenOptions{})
	ref := receive(t, s, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+"b"); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir+"b", storage.OpenOptions{})
	if e, err := s.Find(t.Context(), ref.ID); err != nil || !strings.HasPrefix(e.Path, dir+"b/dumps/") {
		t.Errorf("found %+v, %v", e, err)
	}
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if _, err := local.Open(t.Context(), dir, storage.OpenOptions{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no store: %v", err)
	}
	s := open(t, dir, storage.OpenOptions{})
	ref := receive(t, s, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "index.db")); err != nil {
		t.Fatal(err)
	}
	ro := open(t, dir, storage.OpenOptions{ReadOnly: true})
	wantListed(t, ro, 1)
	if _, err := ro.Find(t.Context(), ref.ID[:20]); err == nil {
		t.Log("found by prefix")
	} else {
		t.Errorf("find: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "index.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a read-only store made an index: %v", err)
	}
}

func TestRemovedByHandAndTrash(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storage.OpenOptions{})
	receive(t, s, 1)
	receive(t, s, 2)
	if err := os.RemoveAll(wantListed(t, s, 2)[0].Path); err != nil {
		t.Fatal(err)
	}
	left := wantListed(t, s, 1)[0].Path
	// A deletion that was killed after its rename.
	if err := os.MkdirAll(filepath.Join(dir, "trash"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(left, filepath.Join(dir, "trash", "x")); err != nil {
		t.Fatal(err)
	}
	wantListed(t, s, 0)
	if err := os.MkdirAll(filepath.Join(dir, "dumps", "node1", "lost+found"), 0o750); err != nil {
		t.Fatal(err)
	}
	rep, err := s.Reindex(t.Context())
	if err != nil || rep.Dumps != 0 || len(rep.Finished) != 1 || len(rep.Ignored) != 1 {
		t.Errorf("reindex %+v, %v", rep, err)
	}
}

func TestReindexNamesDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storage.OpenOptions{})
	receive(t, s, 1)
	receive(t, s, 2)
	e := wantListed(t, s, 2)[0]
	if err := os.WriteFile(filepath.Join(e.Path, dumpdir.ManifestName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	rep, err := s.Reindex(t.Context())
	if err != nil || rep.Dumps != 2 || rep.Damaged != 1 {
		t.Fatalf("reindex %+v, %v", rep, err)
	}
	wantListed(t, s, 2)
	got, err := s.Find(t.Context(), e.String())
	if err != nil || got.State() != dumpdir.StateDamaged || got.Manifest.Release != "6.1.0-test" {
		t.Errorf("found %+v, %v", got.Manifest, err)
	}
}

func TestDamagedDumpGivesWayToANewOne(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storage.OpenOptions{})
	m := dumpdirtest.NewMachine(3, 40, 16)
	ref := storage.Ref{Host: m.Meta.Host, ID: m.Meta.ID}
	w, err := s.Create(t.Context(), m.Meta)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SetPlan(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(w.Dir(), dumpdir.JournalName)
	b, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	b[200] ^= 1
	if err := os.WriteFile(journal, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resume(t.Context(), ref, storage.ResumeOptions{}); !errors.Is(err, storage.ErrNotFound) {
		t.Fatalf("resume: %v", err)
	}
	if w, err = s.Create(t.Context(), m.Meta); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	aside, err := os.ReadDir(filepath.Join(dir, "damaged"))
	if err != nil || len(aside) != 1 {
		t.Errorf("moved aside: %v, %v", aside, err)
	}
	wantListed(t, s, 1)
}
