package storagetest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/storage"
)

// filler returns a Fill of Store.Take that writes the dump of a machine. Without all of its chunks, the dump is partial.
func filler(m *dumpdirtest.Machine, chunks int) func(context.Context, dumpdir.FS, string) error {
	return func(ctx context.Context, fsys dumpdir.FS, dir string) error {
		w, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{})
		if err != nil {
			return err
		}
		err = errors.Join(w.StoreLog(bytes.NewReader(m.Log)), m.SetPlan(w))
		for i := 0; i < chunks && err == nil; i++ {
			err = w.PutChunk(&m.Chunks[i])
		}
		if err == nil {
			_, err = w.Seal(ctx, "deadline")
		}
		return errors.Join(err, w.Close())
	}
}

// testTake takes whole dumps: nobody sees one before it is whole, and an error leaves nothing.
func testTake(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	sealed, stop := s.Subscribe(storage.Sealed)
	defer stop()
	m := machine("node1", id("ab"), day)
	ref := storage.Ref{Host: m.Meta.Host, ID: m.Meta.ID}
	take := func(m *dumpdirtest.Machine, chunks int, instead storage.Replacement) error {
		return s.Take(t.Context(), ref, storage.TakeOptions{
			Fill: filler(m, chunks), Instead: func(stored *storage.Entry) storage.Replacement {
				if stored.Ref != ref {
					t.Errorf("asked about %s", stored.Ref)
				}
				return instead
			},
		})
	}
	failed := errors.New("failed")
	err := s.Take(t.Context(), ref, storage.TakeOptions{Fill: func(ctx context.Context, fsys dumpdir.FS, dir string) error {
		if err := filler(m, len(m.Chunks))(ctx, fsys, dir); err != nil {
			t.Error(err)
		}
		if got := list(t, s, storage.Filter{}); len(got) != 0 {
			t.Errorf("listed before its time: %v", refs(got))
		}
		if u, err := s.Usage(t.Context(), ref.Host); err != nil || u.Bytes == 0 {
			t.Errorf("its usage is %+v, %v", u, err)
		}
		if err := take(m, 0, storage.KeepStored); !errors.Is(err, storage.ErrBusy) {
			t.Errorf("taken twice at a time: %v", err)
		}
		return failed
	}})
	if u, uerr := s.Usage(t.Context(), ref.Host); !errors.Is(err, failed) || uerr != nil || u.Bytes != 0 || len(list(t, s, storage.Filter{})) != 0 {
		t.Errorf("after a failure: %v, usage %+v, %v", err, u, uerr)
	}
	if err := take(m, 1, storage.KeepStored); err != nil {
		t.Fatal(err)
	}
	if got := <-sealed; got != ref {
		t.Errorf("subscribers hear of %s", got)
	}
	if got := list(t, s, storage.Filter{}); len(got) != 1 || got[0].State() != dumpdir.StatePartial {
		t.Fatalf("%v", refs(got))
	}
	if err := take(m, len(m.Chunks), storage.KeepStored); !errors.Is(err, storage.ErrExists) {
		t.Errorf("a stored dump: %v", err)
	}
	if err := take(m, len(m.Chunks), storage.ReplaceStored); err != nil {
		t.Fatal(err)
	}
	for _, s := range []storage.Store{s, open()} {
		if got := list(t, s, storage.Filter{}); len(got) != 1 || got[0].State() != dumpdir.StateComplete {
			t.Fatalf("%v", refs(got))
		}
		checkOpen(t, s, ref, m)
	}
}

// testTakeRefuses takes no dump of another name, none that is arriving, and none that a session writes.
func testTakeRefuses(t *testing.T, open func() storage.Store) {
	t.Helper()
	s := open()
	m := machine("node1", id("ab"), day)
	ref := storage.Ref{Host: m.Meta.Host, ID: m.Meta.ID}
	replace := func(*storage.Entry) storage.Replacement { return storage.ReplaceStored }
	for name, tc := range map[string]struct {
		ref  storage.Ref
		fill func(context.Context, dumpdir.FS, string) error
	}{
		"another name": {storage.Ref{Host: "node2", ID: ref.ID}, filler(m, 1)},
		"a bad name":   {storage.Ref{Host: "..", ID: ref.ID}, filler(m, 1)},
		"nothing":      {ref, func(context.Context, dumpdir.FS, string) error { return nil }},
		"arriving": {ref, func(_ context.Context, fsys dumpdir.FS, dir string) error {
			w, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{})
			if err != nil {
				return err
			}
			return w.Close()
		}},
	} {
		if err := s.Take(t.Context(), tc.ref, storage.TakeOptions{Fill: tc.fill}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	w := begin(t, s, m)
	if err := s.Take(t.Context(), ref, storage.TakeOptions{Fill: filler(m, len(m.Chunks)), Instead: replace}); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("a session writes it: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s, storage.Filter{}); len(got) != 1 || got[0].State() != dumpdir.StateArriving {
		t.Fatalf("%v", refs(got))
	}
	if err := s.Take(t.Context(), ref, storage.TakeOptions{Fill: filler(m, len(m.Chunks)), Instead: replace}); err != nil {
		t.Fatal(err)
	}
	checkOpen(t, s, ref, m)
}
