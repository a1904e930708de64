package local_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
	"github.com/corehaul/corehaul/storage/retention"
	"github.com/corehaul/corehaul/storage/scrub"
)

// files returns all files of a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(name)] = string(b)
	}
	return all
}

// harms are what an interrupted copy, a bad sector or a file system check leaves of the journal of a sealed dump.
var harms = map[string]func(path string) error{
	"tail lost": func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, info.Size()*2/3)
	},
	"seal lost": func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, info.Size()-1)
	},
	"empty":     func(path string) error { return os.Truncate(path, 0) },
	"missing":   os.Remove,
	"no header": func(path string) error { return os.WriteFile(path, []byte("garbage of a disk that is dying"), 0o600) },
}

// TestSealedDumpThatLostItsSealIsListedAsDamaged wants it in lists, with and without an index, and untouched by all that a store
// and those who work on it do.
func TestSealedDumpThatLostItsSealIsListedAsDamaged(t *testing.T) {
	for harm, do := range harms {
		for _, index := range []string{"old index", "no index", "index made again", "read only"} {
			t.Run(harm+", "+index, func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir, storage.OpenOptions{})
				ref := receive(t, s, 7)
				path := wantListed(t, s, 1)[0].Path
				if err := do(filepath.Join(path, dumpdir.JournalName)); err != nil {
					t.Fatal(err)
				}
				before := files(t, path)
				switch index {
				case "no index":
					if err := errors.Join(s.Close(), os.Remove(filepath.Join(dir, "index.db"))); err != nil {
						t.Fatal(err)
					}
					s = open(t, dir, storage.OpenOptions{ReadOnly: true})
				case "index made again":
					rep, err := s.Reindex(t.Context())
					if err != nil || rep.Dumps != 1 || rep.Damaged != 1 || len(rep.Ignored) != 0 {
						t.Errorf("reindex: %+v, %v", rep, err)
					}
				case "read only":
					s = open(t, dir, storage.OpenOptions{ReadOnly: true})
				}
				wantDamaged(t, s, ref)
				wantUnwritten(t, s, ref)
				after := files(t, path)
				for name := range before {
					if after[name] != before[name] {
						t.Errorf("%s was written", name)
					}
				}
				if len(after) != len(before) {
					t.Errorf("%d files, had %d", len(after), len(before))
				}
				wantRecorded(t, s, ref)
			})
		}
	}
}

// wantDamaged looks for the dump in every way.
func wantDamaged(t *testing.T, s *local.Store, ref storage.Ref) {
	t.Helper()
	if e := wantListed(t, s, 1)[0]; e.Ref != ref || e.State() != dumpdir.StateDamaged || e.Manifest.Pages.Present != 40 {
		t.Errorf("listed as %+v", e)
	}
	for state, n := range map[dumpdir.State]int{dumpdir.StateDamaged: 1, dumpdir.StateComplete: 0, dumpdir.StateArriving: 0} {
		if got, err := s.List(t.Context(), storage.Filter{State: []dumpdir.State{state}}); err != nil || len(got) != n {
			t.Errorf("%d dumps are %s, want %d: %v", len(got), state, n, err)
		}
	}
	if e, err := s.Find(t.Context(), ref.ID); err != nil || e.State() != dumpdir.StateDamaged {
		t.Errorf("found %s: %v", e.State(), err)
	}
	d, err := s.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// wantUnwritten does what writers do, and retention.
func wantUnwritten(t *testing.T, s *local.Store, ref storage.Ref) {
	t.Helper()
	for _, opts := range []storage.ResumeOptions{{}, {Takeover: true, Reopen: true}} {
		if _, err := s.Resume(t.Context(), ref, opts); !dumpdir.IsSealedDamage(err) || errors.Is(err, storage.ErrNotFound) {
			t.Errorf("resume: %v", err)
		}
	}
	entries := wantListed(t, s, 1)
	if _, err := s.Create(t.Context(), dumpdir.Meta{ID: ref.ID, Host: ref.Host, StartTime: entries[0].Manifest.StartTime, CrashTime: entries[0].When()}); !errors.Is(err, storage.ErrExists) {
		t.Errorf("create: %v", err)
	}
	plan := retention.Decide(entries, retention.Policy{MaxTotal: 1, MaxAge: time.Second}, storage.Space{}, retention.Clock{Now: time.Now(), Trusted: true})
	if len(plan.Remove) != 0 || len(plan.Held) != 1 || plan.Held[0].By != "damaged" {
		t.Errorf("retention: %+v", plan)
	}
}

// wantRecorded verifies the dump, pins it and removes it.
func wantRecorded(t *testing.T, s *local.Store, ref storage.Ref) {
	t.Helper()
	e := wantListed(t, s, 1)[0]
	rep, err := scrub.Check(t.Context(), s, &e, dumpdir.VerifyOptions{})
	if err != nil || rep.OK() || rep.Findings[0].File != dumpdir.JournalName {
		t.Errorf("verify: %+v, %v", rep, err)
	}
	if e = wantListed(t, s, 1)[0]; e.Verification == nil || e.Verification.Damaged == 0 {
		t.Errorf("recorded: %+v", e.Verification)
	}
	if err := s.SaveSide(t.Context(), ref, dumpdir.NewPin(time.Now(), "look at it"), nil); err != nil {
		t.Errorf("pin: %v", err)
	}
	if err := s.Remove(t.Context(), ref, storage.RemoveOptions{Force: true}); !errors.Is(err, storage.ErrPinned) {
		t.Errorf("remove, pinned: %v", err)
	}
	if err := errors.Join(s.RemoveSide(t.Context(), ref, dumpdir.PinName), s.Remove(t.Context(), ref, storage.RemoveOptions{})); err != nil {
		t.Errorf("unpin and remove: %v", err)
	}
	wantListed(t, s, 0)
}

// TestDumpWithoutJournalAndManifestIsListed has only the names of its directories left.
func TestDumpWithoutJournalAndManifestIsListed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storage.OpenOptions{})
	receive(t, s, 8)
	path := wantListed(t, s, 1)[0].Path
	if err := errors.Join(os.Remove(filepath.Join(path, dumpdir.JournalName)), os.Remove(filepath.Join(path, dumpdir.ManifestName))); err != nil {
		t.Fatal(err)
	}
	if rep, err := s.Reindex(t.Context()); err != nil || rep.Damaged != 1 {
		t.Errorf("reindex: %+v, %v", rep, err)
	}
	e := wantListed(t, s, 1)[0]
	if e.State() != dumpdir.StateDamaged || e.Host != "node1" {
		t.Errorf("listed as %+v", e)
	}
	rep, err := scrub.Check(t.Context(), s, &e, dumpdir.VerifyOptions{})
	if err != nil || rep.OK() {
		t.Errorf("verify: %+v, %v", rep, err)
	}
	if err := s.Remove(t.Context(), e.Ref, storage.RemoveOptions{}); err != nil {
		t.Error(err)
	}
	wantListed(t, s, 0)
}

// TestDamagedChallengerMakesRoom is in no list, and was sealed: its sender begins anew in its place.
func TestDamagedChallengerMakesRoom(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, storage.OpenOptions{})
	ref := receive(t, s, 9)
	m := dumpdirtest.NewMachine(9, 40, 16)
	bring(t, m, s.Challengers().Create)
	if err := os.Truncate(filepath.Join(dir, "next", ref.Host, ref.ID, dumpdir.JournalName), 500); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Challengers().Resume(t.Context(), ref, storage.ResumeOptions{Takeover: true, Reopen: true}); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("resume: %v", err)
	}
	if aside, err := os.ReadDir(filepath.Join(dir, "damaged")); err != nil || len(aside) != 1 {
		t.Errorf("put aside: %v, %v", aside, err)
	}
	bring(t, m, s.Challengers().Create)
}
