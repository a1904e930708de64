package watch_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/storagetest"
)

// TestSealed takes a dump that a sender has sealed, once: also after a restart, and after somebody has removed it.
func TestSealed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.machine("db1")
	dir := r.send(m)
	r.look()
	e := r.one(dumpdir.StateComplete)
	if e.Host != "db1" || e.ID != m.Meta.ID || e.Manifest.Transport != "nfs" || e.Verification == nil {
		t.Errorf("the dump is %+v", e)
	}
	r.verify(e.Ref)
	if _, err := os.Stat(filepath.Join(dir, dumpdir.VMCoreName)); err != nil {
		t.Errorf("the sender's file: %v", err)
	}
	if err := r.store.Remove(t.Context(), e.Ref, storage.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	r.later(time.Hour)
	r.none()
	r.start()
	r.later(time.Hour)
	r.none()
	if err := os.Chtimes(filepath.Join(dir, dumpdir.LogName), time.Now(), time.Now()); err != nil { // it looks like another one
		t.Fatal(err)
	}
	if err := os.Rename(dir, filepath.Join(r.dir, "moved")); err != nil {
		t.Fatal(err)
	}
	r.later(time.Hour)
	r.none()
	if n := len(r.log.Lines("took a dump")); n != 1 {
		t.Errorf("%d lines say that a dump was taken", n)
	}
}

// TestGrowing leaves a dump alone while its sender writes it, seals it as partial when the sender is gone for the grace, and takes the rest when
// the sender comes back.
func TestGrowing(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"nfs", "sftp", "disk"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			testGrowing(t, transport)
		})
	}
}

func testGrowing(t *testing.T, transport string) {
	t.Helper()
	r := newRig(t)
	m := r.machine("db1")
	m.Meta.Transport = transport
	w := r.writer(m, 1)
	lock := r.put(filepath.Join("dumps/db1", filepath.Base(w.Dir()), "writer.lock"), []byte("x 1\n"), 0)
	r.later(time.Second)
	r.later(grace - time.Minute)
	r.chunks(w, m, 1, 2)
	r.later(grace - time.Minute)
	r.none()
	if st := r.w.Status()[0]; st.Arriving != 1 || st.Taken != 0 || len(r.log.Lines("a dump is arriving")) != 1 {
		t.Errorf("status %+v, %d lines say that it is arriving", st, len(r.log.Lines("a dump is arriving")))
	}
	r.later(grace)
	e := r.one(dumpdir.StatePartial)
	if e.Manifest.Reason != dumpdir.ReasonGone || e.Manifest.Pages.Present == 0 {
		t.Errorf("the partial dump: %+v", e.Manifest)
	}
	r.verify(e.Ref)
	r.chunks(w, m, 2, len(m.Chunks))
	dir := r.seal(w)
	r.later(time.Second)
	r.one(dumpdir.StatePartial) // the lock says that its sender is not done
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	r.later(time.Second)
	r.verify(r.one(dumpdir.StateComplete).Ref)
	if names, err := os.ReadDir(filepath.Join(r.data, "replaced")); len(names) != 0 {
		t.Errorf("put aside: %v, %v", names, err)
	}
	if rep := verifyDir(t, dir); !rep.OK() {
		t.Errorf("the sender's directory: %+v", rep)
	}
}

// TestSealedWithLock takes a sealed dump whose sender was killed before it removed its lock.
func TestSealedWithLock(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.machine("db1")
	dir := r.send(m)
	r.put(filepath.Join("dumps/db1", filepath.Base(dir), "writer.lock"), []byte("x 1\n"), 0)
	r.look()
	r.none()
	r.later(time.Minute)
	r.one(dumpdir.StateComplete)
}

func verifyDir(t *testing.T, dir string) *dumpdir.Report {
	t.Helper()
	d, err := dumpdir.Open(dumpdir.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// TestDamaged: a dump that was changed after its seal is listed as damaged, never as complete.
func TestDamaged(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(dir string) error{
		"a flipped bit": func(dir string) error { return flip(filepath.Join(dir, dumpdir.VMCoreName), -100) },
		"cut short":     func(dir string) error { return os.Truncate(filepath.Join(dir, dumpdir.VMCoreName), 20000) },
		"no vmcore":     func(dir string) error { return os.Remove(filepath.Join(dir, dumpdir.VMCoreName)) },
		"no journal":    func(dir string) error { return os.Remove(filepath.Join(dir, dumpdir.JournalName)) },
		"a journal that was cut": func(dir string) error {
			return os.Truncate(filepath.Join(dir, dumpdir.JournalName), 600)
		},
		"a flipped bit of the journal": func(dir string) error { return flip(filepath.Join(dir, dumpdir.JournalName), -200) },
		"another log":                  func(dir string) error { return os.WriteFile(filepath.Join(dir, dumpdir.LogName), []byte("x"), 0o600) },
		"a link for vmcore": func(dir string) error {
			path := filepath.Join(dir, dumpdir.VMCoreName)
			return errors.Join(os.Rename(path, path+".real"), os.Symlink("vmcore.real", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if err := change(r.send(r.machine("db1"))); err != nil {
				t.Fatal(err)
			}
			r.look()
			if name == "a link for vmcore" {
				r.none()
				if len(r.log.Lines("not a regular file")) != 1 {
					t.Errorf("the log has no word of the link:\n%s", r.log.String())
				}
				return
			}
			r.one(dumpdir.StateDamaged)
			r.later(2 * time.Hour)
			if len(r.log.Lines("took a damaged dump")) != 1 {
				t.Errorf("the log:\n%s", r.log.String())
			}
		})
	}
}

// flip flips a bit. An offset below 0 counts from the end.
func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if at < 0 {
		at += st.Size()
	}
	b := make([]byte, 1)
	if _, err = f.ReadAt(b, at); err == nil {
		b[0] ^= 4
		_, err = f.WriteAt(b, at)
	}
	return errors.Join(err, f.Close())
}

// TestStored: a dump that a proved sender brought is replaced by a better one only, and is then put aside.
func TestStored(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		short, damaged bool // the stored dump lacks pages; the watched one is damaged
		state          dumpdir.State
		aside          int
	}{
		"as good":         {false, false, dumpdir.StateComplete, 0},
		"better":          {true, false, dumpdir.StateComplete, 1},
		"better, damaged": {true, true, dumpdir.StatePartial, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			m := r.machine("db1")
			dir := r.send(m)
			m.Meta.Transport = "tls"
			ref := storagetest.Receive(t, r.store, m, tc.short)
			if tc.damaged {
				if err := flip(filepath.Join(dir, dumpdir.VMCoreName), -100); err != nil {
					t.Fatal(err)
				}
			}
			r.look()
			if e := r.one(tc.state); e.Ref != ref {
				t.Errorf("the dump is %s", e.Ref)
			}
			r.verify(ref)
			names, err := os.ReadDir(filepath.Join(r.data, "replaced"))
			if len(names) != tc.aside {
				t.Errorf("put aside: %d (%v)", len(names), err)
			}
			r.later(time.Hour)
			if n := len(r.log.Lines("copying a dump")); n > 1 {
				t.Errorf("it was copied %d times", n)
			}
		})
	}
}

// changing is a store that changes a file of a sender whenever its dump is taken.
type changing struct {
	storage.Store
	path  string
	times int
}

func (c *changing) Take(ctx context.Context, ref storage.Ref, opts storage.TakeOptions) error {
	c.times++
	at := time.Unix(int64(c.times), 0)
	if err := os.Chtimes(c.path, at, at); err != nil {
		return err
	}
	return c.Store.Take(ctx, ref, opts)
}

// TestChanging takes no dump that changes while it is copied, leaves nothing of it, and does not copy it again and again.
func TestChanging(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := &changing{Store: r.store, path: filepath.Join(r.send(r.machine("db1")), dumpdir.LogName)}
	r.store = c
	r.watch()
	for range 60 {
		r.later(10 * time.Second)
	}
	r.none()
	if names, err := os.ReadDir(filepath.Join(r.data, "incoming", "db1")); c.times < 2 || c.times > 6 || len(names) != 0 {
		t.Errorf("copied %d times in 10 minutes; left: %v, %v", c.times, names, err)
	}
	r.store = c.Store
	r.watch()
	r.look()
	r.one(dumpdir.StateComplete)
}

// TestKept takes the files beside a dump, and no word of others about it.
func TestKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.machine("db1")
	w := r.writer(m, len(m.Chunks))
	text := filepath.Join(r.dir, "note")
	if err := os.WriteFile(text, []byte("beside"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(text)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(w.Keep("note.txt", f), f.Close(), os.Remove(text))
	if err != nil {
		t.Fatal(err)
	}
	dir := r.seal(w)
	pin := dumpdir.NewPin(time.Now(), "mine")
	if err := dumpdir.SaveSideFile(dumpdir.OS{}, dir, pin); err != nil {
		t.Fatal(err)
	}
	r.look()
	e := r.one(dumpdir.StateComplete)
	if e.Pin != nil || e.KeptBytes != 6 {
		t.Errorf("pin %+v, %d bytes beside it", e.Pin, e.KeptBytes)
	}
	r.verify(e.Ref)
}
