package crashtree_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
)

const ownDir = "dumps/db1/d"

// sender begins a dump as a sender with a local disk does, with the first chunks.
func (tr *tree) sender(m *dumpdirtest.Machine, chunks int) *dumpdir.Writer {
	tr.t.Helper()
	m.Meta.Host, m.Meta.Transport = "db1", "disk"
	w, err := dumpdir.Create(dumpdir.OS{}, filepath.Join(tr.root, ownDir), m.Meta, dumpdir.Options{})
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(func() { _ = w.Close() })
	if err := errors.Join(w.StoreLog(bytes.NewReader(m.Log)), m.SetPlan(w)); err != nil {
		tr.t.Fatal(err)
	}
	tr.chunks(w, m, 0, chunks)
	return w
}

func (tr *tree) chunks(w *dumpdir.Writer, m *dumpdirtest.Machine, first, end int) {
	tr.t.Helper()
	for i := first; i < end; i++ {
		if err := w.PutChunk(&m.Chunks[i]); err != nil {
			tr.t.Fatal(err)
		}
	}
	if _, err := w.Commit(); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) seal(w *dumpdir.Writer) {
	tr.t.Helper()
	_, err := w.Seal(tr.t.Context(), "the deadline is over")
	if err := errors.Join(err, w.Close()); err != nil {
		tr.t.Fatal(err)
	}
}

// age makes all files of the dump so old.
func (tr *tree) age(d time.Duration) {
	tr.t.Helper()
	at := time.Now().Add(-d)
	files, err := filepath.Glob(filepath.Join(tr.root, ownDir, "*"))
	for _, f := range files {
		err = errors.Join(err, os.Chtimes(f, at, at))
	}
	if err != nil {
		tr.t.Fatal(err)
	}
}

// stamp is the time of the last seal of a stored dump.
func (tr *tree) stamp(dir string) time.Time {
	tr.t.Helper()
	st, err := os.Stat(filepath.Join(dir, dumpdir.SumsName))
	if err != nil {
		tr.t.Fatal(err)
	}
	return st.ModTime()
}

// TestOwn imports a dump directory once, with its journal and its name, and leaves the original.
func TestOwn(t *testing.T) {
	t.Parallel()
	tr := newTree(t)
	m := dumpdirtest.NewMachine(1, 40, 16)
	tr.seal(tr.sender(m, len(m.Chunks)))
	tr.im.Dry = true
	tr.want(map[string][2]string{ownDir: {"would-import complete", ""}})
	tr.im.Dry = false
	o := tr.want(map[string][2]string{ownDir: {"imported complete", ""}})[ownDir]
	e := tr.entry(o)
	if e.Host != "db1" || e.ID != m.Meta.ID || o.HostFrom != "dump" || e.Manifest.Transport != "disk" || e.Verification == nil {
		t.Errorf("%+v\n%+v", o, e)
	}
	was := tr.stamp(e.Path)
	tr.want(map[string][2]string{ownDir: {"present complete", ""}})
	tr.im.Dry = true
	tr.want(map[string][2]string{ownDir: {"present complete", ""}})
	tr.im.Dry = false
	own := filepath.Join(tr.root, ownDir)
	tr.want(map[string][2]string{ownDir: {"present complete", ""}}, filepath.Join(own, "vmcore"), filepath.Join(own, "chunks"))
	if !tr.stamp(e.Path).Equal(was) {
		t.Error("the second import changed the stored dump")
	}
	if d, err := dumpdir.Open(dumpdir.OS{}, own); err != nil || d.State() != dumpdir.StateComplete || d.Close() != nil {
		t.Errorf("the original: %v", err)
	}
	other := newTree(t)
	other.root, other.im.Host = tr.root, "web1"
	other.want(map[string][2]string{ownDir: {"failed", "a dump of the host db1, not of web1"}})
	own, err := filepath.Rel(tr.root, e.Path)
	if err != nil {
		t.Fatal(err)
	}
	tr.want(map[string][2]string{own: {"left out", "in the data directory already"}}, e.Path)
}

// TestOwnGrowing leaves a dump to its sender, imports what an abandoned one has, and the rest when its sender came back.
func TestOwnGrowing(t *testing.T) {
	t.Parallel()
	tr := newTree(t)
	m := dumpdirtest.NewMachine(2, 400, 20)
	half := len(m.Chunks) / 2
	w := tr.sender(m, half)
	tr.age(time.Hour)
	tr.want(map[string][2]string{ownDir: {"later", "left for later: its sender, or a receiver, is writing it"}})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tr.age(time.Minute)
	tr.want(map[string][2]string{ownDir: {"later", "its sender has not finished it, and it changed 1m0s ago; import it again in 5m0s"}})
	tr.age(time.Hour)
	tr.im.Dry = true
	tr.want(map[string][2]string{ownDir: {"would-import partial", dumpdir.ReasonGone}})
	tr.im.Dry = false
	e := tr.entry(tr.want(map[string][2]string{ownDir: {"imported partial", dumpdir.ReasonGone}})[ownDir])
	if e.Manifest.Pages.Present == 0 || e.Manifest.Pages.Missing == 0 {
		t.Errorf("%+v", e.Manifest.Pages)
	}
	tr.want(map[string][2]string{ownDir: {"present partial", dumpdir.ReasonGone}})
	w, err := dumpdir.Resume(dumpdir.OS{}, filepath.Join(tr.root, ownDir), dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tr.chunks(w, m, half, len(m.Chunks))
	tr.seal(w)
	lock := filepath.Join(tr.root, ownDir, "writer.lock")
	if err := os.WriteFile(lock, []byte("x 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tr.want(map[string][2]string{ownDir: {"later", "its sender has not removed its lock, and it changed 0s ago"}})
	tr.age(2 * time.Minute)
	e = tr.entry(tr.want(map[string][2]string{ownDir: {"imported complete", ""}})[ownDir])
	tr.want(map[string][2]string{ownDir: {"present complete", ""}})
	if aside, err := os.ReadDir(filepath.Join(tr.data, "replaced")); len(aside) != 0 {
		t.Errorf("put aside: %v, %v", aside, err)
	}
}

// TestOwnDamaged imports a dump that was changed after its seal as damaged, once, and never in the place of a sound one.
func TestOwnDamaged(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(path string, b []byte) error{
		"flipped":   func(path string, b []byte) error { b[len(b)-100] ^= 4; return os.WriteFile(path, b, 0o600) },
		"truncated": func(path string, b []byte) error { return os.Truncate(path, int64(len(b)/2)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTree(t)
			m := dumpdirtest.NewMachine(3, 40, 16)
			tr.seal(tr.sender(m, len(m.Chunks)))
			path := filepath.Join(tr.root, ownDir, dumpdir.VMCoreName)
			sound, err := os.ReadFile(path)
			if err == nil {
				err = change(path, bytes.Clone(sound))
			}
			if err != nil {
				t.Fatal(err)
			}
			tr.want(map[string][2]string{ownDir: {"imported damaged", "vmcore: "}})
			tr.want(map[string][2]string{ownDir: {"present damaged", ""}})
			if err := os.WriteFile(path, sound, 0o600); err != nil {
				t.Fatal(err)
			}
			tr.entry(tr.want(map[string][2]string{ownDir: {"imported complete", ""}})[ownDir])
			if err := change(path, bytes.Clone(sound)); err != nil {
				t.Fatal(err)
			}
			tr.entry(tr.want(map[string][2]string{ownDir: {"present complete", ""}})[ownDir])
		})
	}
}

// TestOwnStrange names dump directories that are none, and opens nothing but files.
func TestOwnStrange(t *testing.T) {
	t.Parallel()
	tr := newTree(t)
	m := dumpdirtest.NewMachine(4, 40, 16)
	tr.seal(tr.sender(m, len(m.Chunks)))
	own := filepath.Join(tr.root, ownDir)
	err := errors.Join(os.Rename(filepath.Join(own, dumpdir.VMCoreName), filepath.Join(tr.root, "away")),
		os.Symlink(filepath.Join(tr.root, "away"), filepath.Join(own, dumpdir.VMCoreName)), os.Symlink(own, filepath.Join(tr.root, "link")))
	if err != nil {
		t.Fatal(err)
	}
	got := tr.run(filepath.Join(tr.root, "dumps"))
	if o := got[ownDir]; len(got) != 1 || o.Result != "failed" || !strings.Contains(o.Error, "not a regular file") {
		t.Errorf("%+v", got)
	}
}
