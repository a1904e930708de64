package nfsfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/sender/nfsfs/nfs3"
	"github.com/corehaul/corehaul/sender/nfsfs/nfs3/nfs3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mount returns the file system of a server, until the test ends.
func mount(t *testing.T, s *nfs3test.Server, owner string) *FS {
	t.Helper()
	f, err := Mount(t.Context(), nfs3.Config{Port: 1, MountPort: 1, Dial: s.Dial}, nfs3test.Export, owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// TestFile holds a file against a slice of bytes: what is read is what was written last, whatever is on its way, and that is
// durable in the end.
func TestFile(t *testing.T) {
	s := nfs3test.New(t, nfs3test.Behaviour{ShortWrites: 20_000, ShortReads: 30_000})
	file, err := mount(t, s, "me").Create("f")
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	const most = 300_000
	var want []byte
	for range 500 {
		off := rnd.IntN(most)
		p := make([]byte, rnd.IntN(5000)+1)
		switch rnd.IntN(4) {
		case 0:
			if err := file.Truncate(int64(off)); err != nil {
				t.Fatal(err)
			}
			want = append(want, make([]byte, max(0, off-len(want)))...)[:off:off]
		case 1:
			n, err := file.ReadAt(p, int64(off))
			rest := want[min(off, len(want)):]
			if here := min(len(p), len(rest)); n != here || !bytes.Equal(p[:n], rest[:here]) || (err == nil) != (here == len(p)) || err != nil && !errors.Is(err, io.EOF) {
				t.Fatalf("read %d of %d bytes at %d of %d: %v, or they differ", n, len(p), off, len(want), err)
			}
		default:
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			if _, err := file.WriteAt(p, int64(off)); err != nil {
				t.Fatal(err)
			}
			want = append(want, make([]byte, max(0, off+len(p)-len(want)))...)
			copy(want[off:], p)
		}
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := s.ReadFile("f"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes are durable, want %d, %v, or they differ", len(got), len(want), err)
	}
}

// TestStaleDirectory: a directory that somebody removed and made again is found again.
func TestStaleDirectory(t *testing.T) {
	s := nfs3test.New(t, nfs3test.Behaviour{})
	one, two := mount(t, s, "one"), mount(t, s, "two")
	if err := one.MkdirAll("a/b"); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Create("a/b/old"); err != nil {
		t.Fatal(err)
	}
	// The simulated server removes directories like files.
	if err := errors.Join(two.Remove("a/b"), two.MkdirAll("a/b")); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Create("a/b/new"); err != nil {
		t.Fatal(err)
	}
	if names, err := two.ReadDir("a/b"); err != nil || !slices.Equal(names, []string{"new"}) {
		t.Errorf("names %q, %v", names, err)
	}
}

// TestLocked: two writers exclude each other, and what cannot be locked is no lock of another one.
func TestLocked(t *testing.T) {
	s := nfs3test.New(t, nfs3test.Behaviour{})
	one, two := mount(t, s, "one"), mount(t, s, "two")
	if _, err := one.Lock("none"); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, dumpdir.ErrLocked) {
		t.Errorf("a directory that is not there: %v", err)
	}
	l, err := one.Lock(".")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.Lock("."); !errors.Is(err, dumpdir.ErrLocked) {
		t.Errorf("the second: %v, want ErrLocked", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = two.Lock(".")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestInTheWay: what is not a directory, where one has to be, is named.
func TestInTheWay(t *testing.T) {
	s := nfs3test.New(t, nfs3test.Behaviour{})
	s.Add("link", true)
	s.Add("file", false)
	f := mount(t, s, "me")
	for name, has := range map[string]string{"link": "it is a symbolic link", "link/a/b": "it is a symbolic link", "file": "it is no directory; move it away"} {
		if err := f.MkdirAll(name); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), has) {
			t.Errorf("%s: %v, want %q", name, err, has)
		}
	}
}
