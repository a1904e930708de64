package sftpfs

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pkg/sftp"
	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/sender/remotefs"
)

// What package remotefs does with small reads and writes: the length of a block of its cache, in bytes, and the number of blocks.
const (
	blockLen  = 32 << 10
	maxBlocks = 64
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect starts an SFTP server for dir and returns its file system, which ends with the test.
func connect(t *testing.T, dir, owner string) *FS {
	t.Helper()
	f, _ := connectCounted(t, dir, owner)
	return f
}

// connectCounted is connect, and counts what is asked for.
func connectCounted(t *testing.T, dir, owner string) (*FS, *requests) {
	t.Helper()
	near, far := net.Pipe()
	line := &requests{Conn: near, count: map[byte]int{}}
	server, err := sftp.NewServer(far, sftp.WithServerWorkingDirectory(dir))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve() // it ends with the client
	}()
	c, err := sftp.NewClientPipe(line, line, sftp.UseConcurrentWrites(true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = c.Close(), far.Close(), <-done })
	f, err := New(c, owner)
	if err != nil {
		t.Fatal(err)
	}
	return f, line
}

// TestFile holds a file against a slice of bytes: what is read is what was written last, whatever
// is on its way, and so is what lies on the server in the end.
func TestFile(t *testing.T) {
	for seed := range uint64(5) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		file, err := connect(t, dir, "me").Create("f")
		if err != nil {
			t.Fatal(err)
		}
		want := drive(t, file, rnd)
		if err := errors.Join(file.Sync(), file.Close()); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("seed %d: the file has %d bytes that are not the %d that were written, %v", seed, len(got), len(want), err)
		}
	}
}

// drive does whatever comes to mind with a file and returns what has to be in it.
func drive(t *testing.T, file dumpdir.File, rnd *rand.Rand) []byte {
	t.Helper()
	const most = 6 * blockLen
	var want []byte
	grow := func(n int) {
		if n > len(want) {
			want = append(want, make([]byte, n-len(want))...)
		}
	}
	for range 600 {
		off, n := rnd.IntN(most), rnd.IntN(200)
		if rnd.IntN(8) == 0 {
			n = rnd.IntN(3 * blockLen)
		}
		switch p := make([]byte, n); rnd.IntN(10) {
		case 0, 1, 2, 3:
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			if _, err := file.WriteAt(p, int64(off)); err != nil {
				t.Fatal(err)
			}
			if n > 0 {
				grow(off + n)
			}
			copy(want[min(off, len(want)):], p)
		case 4:
			if err := file.Truncate(int64(off)); err != nil {
				t.Fatal(err)
			}
			grow(off)
			want = slices.Clip(want[:off])
		case 5:
			if size, err := file.Size(); err != nil || size != int64(len(want)) {
				t.Fatalf("size %d, %v, want %d", size, err, len(want))
			}
		default:
			got, err := file.ReadAt(p, int64(off))
			if here := min(n, max(0, len(want)-off)); got != here || !bytes.Equal(p[:got], want[min(off, len(want)):][:here]) || (err == nil) != (here == n) {
				t.Fatalf("read %d of %d bytes at %d of %d: %v, or they differ", got, n, off, len(want), err)
			}
		}
	}
	return want
}

// TestLateError: the error of a write comes at the latest with Sync, and stays.
func TestLateError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := connect(t, dir, "me").Open("f") // for reading
	if err != nil {
		t.Fatal(err)
	}
	_, werr := file.WriteAt([]byte("more"), 0)
	if err := file.Sync(); err == nil {
		t.Errorf("a write that failed (%v) is not in the sync", werr)
	}
	if _, err := file.WriteAt([]byte("more"), 0); err == nil {
		t.Error("the error was forgotten")
	}
	if err := file.Close(); err == nil {
		t.Error("the error was forgotten at the end")
	}
}

// TestNames holds what dumpdir.FS says of names.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	f := connect(t, dir, "me")
	if _, err := f.Open("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := f.Lock("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock of a directory that is not there: %v", err)
	}
	if err := errors.Join(f.MkdirAll("a/b/c"), f.MkdirAll("a/b/c")); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "a/b/c")); err != nil || st.Mode().Perm() != remotefs.DirMode {
		t.Errorf("directory: %v, %v", st, err)
	}
	for _, name := range []string{"z", "b", "y"} {
		file, err := f.Create("a/b/c/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt([]byte(name), 0); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Rename("a/b/c/y", "a/b/c/b"); err != nil {
		t.Fatal(err)
	}
	if names, err := f.ReadDir("a/b/c"); err != nil || !slices.Equal(names, []string{"b", "z"}) {
		t.Errorf("names %q, %v", names, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a/b/c/b")); err != nil || string(got) != "y" {
		t.Errorf("the file that was replaced has %q, %v", got, err)
	}
	if st, err := os.Stat(filepath.Join(dir, "a/b/c/b")); err != nil || st.Mode().Perm() != remotefs.FileMode {
		t.Errorf("file: %v, %v", st, err)
	}
	if err := f.Remove("a/b/c/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed what is not there: %v", err)
	}
}

// TestDump writes a dump as a writer does, with a server in between, and verifies it without one.
func TestDump(t *testing.T) {
	dir := t.TempDir()
	f := connect(t, dir, "me")
	w, err := dumpdir.Create(f, "d", dumpdir.Meta{ID: "00112233445566778899aabbccddeeff", Host: "h"}, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.StoreLog(bytes.NewReader([]byte("a log\n"))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Seal(t.Context(), "only the log"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := dumpdir.Open(dumpdir.OS{}, filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }() // only read
	if d.State() != dumpdir.StateLogOnly || d.Damage() != nil {
		t.Errorf("state %s, damage %v", d.State(), d.Damage())
	}
}
