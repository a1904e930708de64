package localfs_test

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/sender/disk"
	"github.com/corehaul/corehaul/sender/localfs"
)

func open(t *testing.T, dir string) *localfs.FS {
	t.Helper()
	f, err := localfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestDump writes a dump, and writes on in it. dumpdir.OS reads it.
func TestDump(t *testing.T) {
	root := t.TempDir()
	f, m := open(t, root), dumpdirtest.NewMachine(1, 400, 20)
	dir := filepath.Join(root, "dumps", "host", "dump")
	if err := f.MkdirAll(filepath.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	w, err := dumpdir.Create(f, dir, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	half := len(m.Chunks) / 2
	err = m.SetPlan(w)
	for i := range half {
		err = errors.Join(err, w.PutChunk(&m.Chunks[i]))
	}
	_, commitErr := w.Commit()
	if err = errors.Join(err, commitErr, w.Close()); err != nil {
		t.Fatal(err)
	}
	if w, err = dumpdir.Resume(f, dir, dumpdir.Options{}); err != nil {
		t.Fatal(err)
	}
	for i := half; i < len(m.Chunks); i++ {
		err = errors.Join(err, w.PutChunk(&m.Chunks[i]))
	}
	_, sealErr := w.Seal(t.Context(), "")
	if err = errors.Join(err, sealErr, w.Close()); err != nil {
		t.Fatal(err)
	}
	d, err := dumpdir.Open(dumpdir.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }() // only read
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
	if err != nil || rep.Damaged != 0 || d.Manifest().State != dumpdir.StateComplete {
		t.Errorf("%+v, %v, %s", rep, err, d.Manifest().State)
	}
}

// TestLockExcludesReceivers: the lock is that of a store on the same directory.
func TestLockExcludesReceivers(t *testing.T) {
	root := t.TempDir()
	f := open(t, root)
	held, err := dumpdir.OS{}.Lock(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lock(root); !errors.Is(err, dumpdir.ErrLocked) || !strings.Contains(err.Error(), root) {
		t.Errorf("got %v, want ErrLocked with the directory", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := f.Lock(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// TestPlanted: links, FIFOs and directories that somebody put in the way lead nothing out of the directory, and nothing waits.
func TestPlanted(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	victim := filepath.Join(outside, "victim")
	at := func(name string) string { return filepath.Join(root, name) }
	err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.WriteFile(at("own"), []byte("own"), 0o600),
		os.Symlink(outside, at("dumps")), os.Symlink(victim, at("vmcore")), os.Symlink("own", at("inside")),
		unix.Mkfifo(at("fifo"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	f := open(t, root)
	for _, name := range []string{"vmcore", "inside", "fifo", "../" + filepath.Base(outside) + "/victim"} {
		for what, do := range map[string]func(string) (dumpdir.File, error){"open": f.Open, "open for writing": f.OpenRW} {
			if file, err := do(root + "/" + name); err == nil {
				_ = file.Close()
				t.Errorf("%s of %s worked", what, name)
			}
		}
	}
	for what, do := range map[string]func() error{
		"a directory": func() error { return f.MkdirAll(at("dumps/host")) },
		"a file":      func() error { _, err := f.Create(at("dumps/new")); return err },
		"a rename":    func() error { return f.Rename(at("own"), at("dumps/own")) },
		"a removal":   func() error { return f.Remove(at("dumps/victim")) },
		"a lock":      func() error { _, err := f.Lock(at("dumps")); return err },
		"a list":      func() error { _, err := f.ReadDir(at("dumps")); return err },
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), at("")) {
			t.Errorf("%s outside: %v, want an error with the path", what, err)
		}
	}
	file, err := f.Create(at("vmcore"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteAt([]byte("dump"), 0)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
		t.Errorf("the file outside is %q, %v", b, err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

// TestOpenBelow: a directory on a file system whose links mean that file system, also absolute ones to elsewhere.
func TestOpenBelow(t *testing.T) {
	mount, elsewhere := t.TempDir(), t.TempDir()
	err := errors.Join(os.MkdirAll(filepath.Join(mount, "var/crash"), 0o700), os.Symlink("var", filepath.Join(mount, "relative")),
		os.Symlink(elsewhere, filepath.Join(mount, "absolute")))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/var/crash", "/relative/crash", "/"} {
		f, err := localfs.OpenBelow(mount, dir)
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		if err := errors.Join(f.MkdirAll(f.Root()+"/dumps"), f.Close()); err != nil || f.Root() != dir {
			t.Errorf("%s: %v, the root is %s", dir, err, f.Root())
		}
	}
	for dir, want := range map[string]error{"/absolute": nil, "/none": fs.ErrNotExist} {
		_, err := localfs.OpenBelow(mount, dir)
		if e, ok := errors.AsType[*localfs.Error](err); !ok || want != nil && !errors.Is(err, want) || strings.Contains(err.Error(), mount) || e.Hint == "" {
			t.Errorf("%s: %v, want an error that names it as the target does", dir, err)
		}
	}
}

func TestParseURL(t *testing.T) {
	const uuid = "01234567-89ab-cdef-0123-456789abcdef"
	for to, want := range map[string]localfs.Target{
		"file:///var/crash": {Dir: "/var/crash"}, "file:///var/crash/": {Dir: "/var/crash"}, "file:///": {Dir: "/"},
		"file:///a%20b": {Dir: "/a b"}, "file:/var/crash": {Dir: "/var/crash"},
		"file:///crash?fs=UUID=" + uuid: {Dir: "/crash", FS: disk.Spec{UUID: uuid}},
		"file:///?fs=LABEL=a+b%20c%2Cd": {Dir: "/", FS: disk.Spec{Label: "a+b c,d"}},
		"file:///crash?fs=/dev/vda1":    {Dir: "/crash", FS: disk.Spec{Device: "vda1"}},

		"file://var/crash": {}, "file:var": {}, "file://": {}, "file:///a?x=1": {}, "file:///a/../b": {}, "file:///a#b": {}, "file:///a%00": {},
		"file:///a?fs=": {}, "file:///a?fs=vda1": {}, "file:///a?fs=LABEL=%zz": {}, "file:///a?fs=LABEL=a&fs=LABEL=b": {},
	} {
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := localfs.ParseURL(u); got != want || (err == nil) != (want.Dir != "") {
			t.Errorf("%s: %+v, %v, want %+v", to, got, err, want)
		}
	}
}
