package storagetest

import (
	"bytes"
	"testing"

	"github.com/corehaul/corehaul/storage"
)

// testUsage: dumps, files beside them, challengers and dumps that a challenger replaced count for their host, until they are removed.
func testUsage(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	used := func(host string, dumps int, more func(before uint64) bool) (now uint64) {
		t.Helper()
		u, err := open().Usage(t.Context(), host)
		if err != nil || u.Dumps != dumps || !more(u.Bytes) {
			t.Errorf("%s has %+v, %v, want %d dumps", host, u, err, dumps)
		}
		return u.Bytes
	}
	none := func(n uint64) bool { return n == 0 }
	used("node1", 0, none)
	m := machine("node1", id("a"), day)
	ref := Receive(t, s, m, false)
	list, err := s.List(t.Context(), storage.Filter{})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d dumps, %v", len(list), err)
	}
	alone := used("node1", 1, func(n uint64) bool { return n >= list[0].Bytes() && n < list[0].Bytes()+64<<10 })
	used("node", 0, none)
	used("node1-"+ref.ID, 0, none)

	w, err := s.Resume(t.Context(), ref, storage.ResumeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const size = 256 << 10
	if err := w.Keep("opalcore", bytes.NewReader(bytes.Repeat([]byte{1}, size))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	kept := used("node1", 1, func(n uint64) bool { return n >= alone+size })

	c := challenge(t, s, otherPlan(m), 1)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	used("node1", 1, func(n uint64) bool { return n > kept })
	if err := s.Challengers().Promote(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	replaced := used("node1", 1, func(n uint64) bool { return n > kept })
	if err := s.Remove(t.Context(), ref, storage.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	used("node1", 0, func(n uint64) bool { return n >= kept && n < replaced })
	testHoles(t, s)
}

// testHoles: the front of a dump that is mostly a hole counts for what it uses.
func testHoles(t *testing.T, s storage.Store) {
	t.Helper()
	m := machine("node2", id("b"), day)
	m.Facts.MaxPFN, m.End.Sparse = 1<<36, true
	w, err := s.Create(t.Context(), m.Meta)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	if err := m.SetPlan(w); err != nil {
		t.Fatal(err)
	}
	put(t, w, m, 0, 1)
	u, err := s.Usage(t.Context(), "node2")
	if p := w.Progress(); err != nil || p.Bytes < 1<<30 || u.Bytes > 64<<20 || u.Bytes < uint64(p.PageData) {
		t.Errorf("a dump of %d bytes with %d of pages uses %d: %v", p.Bytes, p.PageData, u.Bytes, err)
	}
}
