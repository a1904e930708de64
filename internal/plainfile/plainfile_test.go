package plainfile_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// place makes something of each kind that is no regular file, and a regular one.
func place(t *testing.T) (dir string, others []string) {
	t.Helper()
	dir = t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	err = errors.Join(
		os.WriteFile(in("file"), []byte("precious"), 0o600), unix.Mkfifo(in("fifo"), 0o600), os.Mkdir(in("dir"), 0o700),
		os.Symlink("file", in("link")), os.Symlink("fifo", in("link to fifo")), os.Symlink("nothing", in("dangling")))
	if err != nil {
		t.Fatal(err)
	}
	return dir, []string{in("fifo"), in("dir"), in("socket"), in("link to fifo"), "/dev/null", "/dev/tty"}
}

// TestOpenTakesRegularFilesOnly waits for nothing: neither for the other end of a FIFO nor for a device.
func TestOpenTakesRegularFilesOnly(t *testing.T) {
	dir, others := place(t)
	for _, path := range others {
		for name, open := range map[string]func() error{
			"Open":     func() error { _, err := plainfile.Open(path); return err },
			"Read":     func() error { _, err := plainfile.Read(path, 10); return err },
			"ReadText": func() error { _, err := plainfile.ReadText(path, 10); return err },
		} {
			if err := open(); !errors.Is(err, plainfile.ErrNotRegular) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s %s: %v", name, path, err)
			}
		}
	}
	for _, path := range []string{filepath.Join(dir, "file"), filepath.Join(dir, "link"), "/proc/self/status"} {
		f, err := plainfile.Open(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		_ = f.Close()
	}
	if _, err := plainfile.Open(filepath.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, name := range []string{"link", "fifo", "dangling"} {
		if _, err := plainfile.OpenFile(filepath.Join(dir, name), os.O_RDWR); err == nil {
			t.Errorf("%s was opened for writing", name)
		}
		if _, err := plainfile.OpenToExtend(filepath.Join(dir, name), 0o600); err == nil {
			t.Errorf("%s was opened to extend", name)
		}
	}
	if _, err := plainfile.Read(filepath.Join(dir, "file"), 7); err == nil {
		t.Error("a file that is too large was read")
	}
}

// TestReadTextOfAPipe is a shell's <(COMMAND).
func TestReadTextOfAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := w.WriteString("text"); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/dev/fd/%d", r.Fd())
	if b, err := plainfile.ReadText(path, 10); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestCreateFollowsNothing makes files where links, FIFOs and files were planted.
func TestCreateFollowsNothing(t *testing.T) {
	dir, _ := place(t)
	for _, name := range []string{"link", "dangling", "fifo", "link to fifo", "socket", "new"} {
		path := filepath.Join(dir, name)
		f, err := plainfile.Create(path, 0o640)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := f.WriteString("planted"); err != nil || f.Close() != nil {
			t.Error(err)
		}
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "precious" {
		t.Errorf("the file behind the link has %q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a dangling link was followed: %v", err)
	}
}

// TestPendingSaysItsName has every error name the file that the caller knows, and none the one beside it.
func TestPendingSaysItsName(t *testing.T) {
	dir, _ := place(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	commit := func(p *plainfile.Pending, err error) error {
		if err == nil {
			_, err = p.WriteString("new")
			err = errors.Join(err, p.Commit())
		}
		return err
	}
	for _, path := range []string{in("fifo"), in("dir"), in("link to fifo"), in("socket"), in("no/such"), in("file/x"), "/dev/null"} {
		err := commit(plainfile.CreatePending(path))
		if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), ".tmp") {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{in("file"), in("link"), in("dangling"), in("fifo")} {
		err := commit(plainfile.CreatePendingNew(path))
		if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), ".tmp") {
			t.Errorf("new %s: %v", path, err)
		}
	}
	p, err := plainfile.CreatePending(in("gone"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(p.Path()); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); err == nil || !strings.Contains(err.Error(), in("gone")) || strings.Contains(err.Error(), ".tmp") {
		t.Errorf("it is gone: %v", err)
	}
	long := in(strings.Repeat("n", 255))
	if err := errors.Join(commit(plainfile.CreatePending(in("link"))), commit(plainfile.CreatePendingNew(long))); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(in("file")); err != nil || string(b) != "new" {
		t.Errorf("behind the link: %q, %v", b, err)
	}
	if left, err := filepath.Glob(in(".*.tmp")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestOpenToOthers is OpenSSH's rule for keys.
func TestOpenToOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[fs.FileMode]string{0o600: "", 0o400: "", 0o640: "its group", 0o620: "its group", 0o604: "everybody", 0o644: "everybody", 0o601: "everybody"} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := plainfile.OpenToOthers(info); (want == "") != (got == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%v: open to %q, want %q", mode, got, want)
		}
	}
}

// TestBlocks counts what a file with a hole uses.
func TestBlocks(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	data := []byte(strings.Repeat("data", 16<<10))
	if _, err := f.WriteAt(data, 16<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil { // some file systems count blocks when they write them
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if used := plainfile.Blocks(st); used < uint64(len(data)) || used > 1<<20 || plainfile.Holes(st) != uint64(st.Size())-used {
		t.Errorf("a file of %d bytes, all but %d of them a hole, uses %d bytes and has holes of %d", st.Size(), len(data), used, plainfile.Holes(st))
	}
}
