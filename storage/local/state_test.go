package local_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/retention"
)

// TestStateIsLeftAlone has a store opened, indexed, pruned, repaired and swept: what dumps cannot rebuild stays byte for byte, and so
// does a name that nobody knows.
func TestStateIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	foreign := map[string]string{
		"state/tokens.json": "{}", "state/groups.json": `{"version": 1}`, "state/groups.json.tmp": "torn", "state/index.db": "no index", "state/dumps/web1/x.tmp": "no dump", "state/a.tmp": "a", "unknown/x.tmp": "b",
	}
	for name, content := range foreign {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []func(s storage.Store) error{
		func(s storage.Store) error { _, err := s.Reindex(t.Context()); return err },
		func(s storage.Store) error {
			return os.WriteFile(filepath.Join(dir, "index.db"), []byte("damaged"), 0o600)
		},
		func(s storage.Store) error { _, err := s.List(t.Context(), storage.Filter{}); return err },
		func(s storage.Store) error { _, err := s.Challengers().List(t.Context()); return err },
		func(s storage.Store) error { return s.CheckWritable(t.Context()) },
		func(s storage.Store) error {
			plan, err := retention.Look(t.Context(), s, retention.Policy{MaxPerHost: 1, MaxTotal: 1}, retention.Clock{Now: time.Now(), Trusted: true})
			if err != nil {
				return err
			}
			_, err = retention.CarryOut(t.Context(), s, plan, false)
			return err
		},
	} {
		s := open(t, dir, storage.OpenOptions{})
		receive(t, s, 1)
		receive(t, s, 2)
		if err := step(s); err != nil {
			t.Fatal(err)
		}
		left, err := s.List(t.Context(), storage.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			if err := s.Remove(t.Context(), e.Ref, storage.RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for name, want := range foreign {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
}
