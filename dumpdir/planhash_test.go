package dumpdir_test

import (
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

// TestPlanIs compares plans, among them one of a journal that has half of the hash.
func TestPlanIs(t *testing.T) {
	whole := dumpdir.PlanEnd{Hash: dumpdir.PlanHash{1, 7: 2, 8: 3, 15: 4}, Chunks: 5, Pages: 6}
	change := func(change func(*dumpdir.PlanEnd)) dumpdir.PlanEnd {
		end := whole
		change(&end)
		return end
	}
	half := change(func(e *dumpdir.PlanEnd) { clear(e.Hash[8:]) })
	for _, tc := range []struct {
		name        string
		stored, end dumpdir.PlanEnd
		want        bool
	}{
		{"same", whole, whole, true},
		{"stored by an older program", half, whole, true},
		{"half of both", half, half, true},
		{"other first half", whole, change(func(e *dumpdir.PlanEnd) { e.Hash[7]++ }), false},
		{"other second half", whole, change(func(e *dumpdir.PlanEnd) { e.Hash[15]++ }), false},
		{"other first half than the older program's", half, change(func(e *dumpdir.PlanEnd) { e.Hash[7]++ }), false},
		{"other chunks", whole, change(func(e *dumpdir.PlanEnd) { e.Chunks++ }), false},
		{"other pages", half, change(func(e *dumpdir.PlanEnd) { e.Pages++ }), false},
	} {
		stored := dumpdir.PlanInfo{PlanEnd: tc.stored}
		if got := stored.Is(&tc.end); got != tc.want {
			t.Errorf("%s: %t, want %t", tc.name, got, tc.want)
		}
	}
}

// TestPlanHashIsKept stores both halves of a hash, and one of a hash that has no more; the version of the journal is the lowest that
// has a place for it. A recovery that writes the journal anew keeps both.
func TestPlanHashIsKept(t *testing.T) {
	for _, tc := range []struct {
		name     string
		hash     dumpdir.PlanHash
		excluded bool // struct pages: a fact of version 2
		version  uint16
	}{
		{"half", dumpdir.PlanHash{1, 2, 3, 4, 5, 6, 7, 8}, false, 1},
		{"half, with a fact of version 2", dumpdir.PlanHash{1, 2, 3, 4, 5, 6, 7, 8}, true, 2},
		{"whole", dumpdir.PlanHash{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, false, 3},
		{"whole, with a fact of version 2", dumpdir.PlanHash{15: 1}, true, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := dumpdirtest.NewMachine(3, 120, 16)
			m.End.Hash, m.Facts.ExcludedVmemmap = tc.hash, tc.excluded
			fsys := dumpdirtest.NewFS()
			w := start(t, fsys, dir, m)
			putAll(t, w, m.Chunks)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if v := journalVersionOf(t, fsys); v != tc.version {
				t.Errorf("journal version %d, want %d", v, tc.version)
			}
			b, _ := fsys.Bytes(dir + "/" + dumpdir.IncompleteName)
			flip(t, fsys, dumpdir.IncompleteName, int64(len(b)-200), 0) // a chunk is lost in recovery
			w, err := dumpdir.Resume(fsys, dir, dumpdir.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = w.Close() })
			if p := w.Progress(); p.Chunks == uint64(len(m.Chunks)) {
				t.Error("no chunk was lost")
			}
			if p, ok := w.Plan(); !ok || p.Hash != tc.hash || !p.Is(&m.End) {
				t.Errorf("the plan is %+v, want hash %x", p, tc.hash)
			}
			if _, err := w.Seal(t.Context(), "test"); err != nil {
				t.Fatal(err)
			}
			wantClean(t, verify(t, fsys, dir))
			if v, hash := journalVersionOf(t, fsys), openDump(t, fsys, dir).Manifest().Plan.Hash; v != tc.version || len(hash) != 16 {
				t.Errorf("journal version %d, hash %s in the manifest", v, hash)
			}
		})
	}
}
