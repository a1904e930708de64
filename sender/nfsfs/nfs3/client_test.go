package nfs3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vmware/go-nfs-client/nfs"
	"github.com/vmware/go-nfs-client/nfs/rpc"
	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/sender/nfsfs/nfs3/nfs3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect mounts the exported directory, until the test ends.
func connect(t *testing.T, s *nfs3test.Server) *Client {
	t.Helper()
	c, err := Mount(t.Context(), Config{Port: s.Port(), MountPort: s.Port(), Dial: s.Dial}, nfs3test.Export)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func newTestFile(t *testing.T, c *Client) *File {
	t.Helper()
	fh, err := c.Create(c.Root, "f", 0o640, false)
	if err != nil {
		t.Fatal(err)
	}
	return c.File(fh)
}

func someBytes(n int) []byte {
	rnd := rand.New(rand.NewPCG(uint64(n), 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// TestNames does each procedure that has a name, and what the server says of names that are there, and that are not.
func TestNames(t *testing.T) {
	c := connect(t, nfs3test.New(t, nfs3test.Behaviour{}))
	if err := c.Mkdir(c.Root, "d", 0o750); err != nil {
		t.Fatal(err)
	}
	dir, attr, err := c.Lookup(c.Root, "d")
	if err != nil || !attr.Dir {
		t.Fatalf("%+v, %v", attr, err)
	}
	if err := c.Mkdir(c.Root, "d", 0o750); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a directory twice: %v", err)
	}
	var want []string
	for i := range 12 {
		name := fmt.Sprintf("name-%02d", i)
		want = append(want, name)
		if _, err := c.Create(dir, name, 0o640, true); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Create(dir, want[0], 0o640, true); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an exclusive file twice: %v", err)
	}
	if got, err := c.ReadDir(dir); err != nil || !slices.Equal(got, want) {
		t.Errorf("names %q, %v", got, err)
	}
	if err := errors.Join(c.Rename(dir, want[0], c.Root, "moved"), c.Remove(dir, want[1])); err != nil {
		t.Error(err)
	}
	if _, _, err := c.Lookup(dir, want[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old name: %v", err)
	}
	if _, _, err := c.Lookup(c.Root, "moved"); err != nil {
		t.Error(err)
	}
	if err := c.Remove(dir, want[1]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	if free, err := c.Free(dir); err != nil || free != 1<<38 {
		t.Errorf("%d bytes free, %v", free, err)
	}
}

// TestData writes and reads with a server that does less than it is asked for, and answers in fragments.
func TestData(t *testing.T) {
	s := nfs3test.New(t, nfs3test.Behaviour{ShortReads: 70_001, ShortWrites: 50_003, Fragment: 999})
	c := connect(t, s)
	f := newTestFile(t, c)
	want := someBytes(3<<20 + 5)
	if n, err := f.WriteAt(want, 0); n != len(want) || err != nil {
		t.Fatal(n, err)
	}
	if size, err := f.Size(); err != nil || size != int64(len(want)) {
		t.Errorf("size %d, %v", size, err)
	}
	got := make([]byte, len(want)+10)
	if n, err := f.ReadAt(got, 0); n != len(want) || !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], want) {
		t.Errorf("%d bytes, %v, or they differ", n, err)
	}
	if b, err := s.ReadFile("f"); err != nil || len(b) != 0 {
		t.Errorf("%d bytes are durable before the commit, %v", len(b), err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if b, err := s.ReadFile("f"); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%d bytes are durable, %v, or they differ", len(b), err)
	}
	if _, err := c.Create(c.Root, "f", 0o640, false); err != nil {
		t.Fatal(err)
	}
	if size, err := f.Size(); err != nil || size != 0 {
		t.Errorf("created again, it has %d bytes, %v", size, err)
	}
}

// TestVerifier: a server that forgot writes between WRITE and COMMIT is found out, and only then.
func TestVerifier(t *testing.T) {
	s := nfs3test.New(t, nfs3test.Behaviour{})
	c := connect(t, s)
	f := newTestFile(t, c)
	for i, tc := range []struct {
		do   func()
		want error
	}{
		{func() {}, nil},
		{func() { s.Forget() }, nil}, // nothing was uncommitted
		{func() { _, _ = f.WriteAt([]byte("x"), 0) }, nil},
		{func() { _, _ = f.WriteAt([]byte("x"), 0); s.Forget() }, ErrNotCommitted},
		{func() {}, ErrNotCommitted}, // it stays
	} {
		tc.do()
		if err := f.Sync(); !errors.Is(err, tc.want) {
			t.Errorf("%d: %v, want %v", i, err, tc.want)
		}
	}
	g := newTestFile(t, c)
	for range 2 {
		if _, err := g.WriteAt([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		s.Forget()
	}
	if _, err := g.WriteAt([]byte("y"), 1); err != nil {
		t.Fatal(err)
	}
	if err := g.Sync(); !errors.Is(err, ErrNotCommitted) {
		t.Errorf("two writes with two verifiers: %v", err)
	}
}

// TestCommitError: after a commit that failed, what was written may be gone, whatever the next commit says.
func TestCommitError(t *testing.T) {
	hook := func(c nfs3test.Call) (nfs3test.Deed, uint32) {
		if c.Proc == nfs.NFSProc3Commit && c.N == 1 {
			return nfs3test.Do, nfs.NFS3ErrNoSpc
		}
		return nfs3test.Do, 0
	}
	s := nfs3test.New(t, nfs3test.Behaviour{Hook: hook})
	f := newTestFile(t, connect(t, s))
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Sync(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v, want ENOSPC", err)
		}
	}
}

// TestJukebox: a call is repeated while the server asks for patience, and not for ever.
func TestJukebox(t *testing.T) {
	const some = 3
	var times atomic.Int64
	times.Store(some)
	hook := func(c nfs3test.Call) (nfs3test.Deed, uint32) {
		if c.Proc == nfs.NFSProc3Write && int64(c.N) <= times.Load() {
			return nfs3test.Jukebox, 0
		}
		return nfs3test.Do, 0
	}
	s := nfs3test.New(t, nfs3test.Behaviour{Hook: hook})
	c := connect(t, s)
	c.jukebox = jukeboxTimes{time.Millisecond, 2 * time.Millisecond, time.Hour}
	f := newTestFile(t, c)
	if n, err := f.WriteAt([]byte("text"), 0); n != 4 || err != nil || s.Count(nfs.NFSProc3Write) != some+1 {
		t.Errorf("%d bytes, %v, %d calls", n, err, s.Count(nfs.NFSProc3Write))
	}
	times.Store(1 << 30)
	c.jukebox.all = 0
	if _, err := f.WriteAt([]byte("text"), 0); !errors.Is(err, statusJukebox) {
		t.Errorf("got %v, want JUKEBOX", err)
	}
}

// TestNothingTwice: no call is repeated when the connection ends, and all that wait get a LostError.
func TestNothingTwice(t *testing.T) {
	for name, deed := range map[string]nfs3test.Deed{"before": nfs3test.Cut, "after": nfs3test.DoAndCut} {
		t.Run(name, func(t *testing.T) {
			hook := func(c nfs3test.Call) (nfs3test.Deed, uint32) {
				if c.Proc == nfs.NFSProc3Remove {
					return deed, 0
				}
				return nfs3test.Do, 0
			}
			s := nfs3test.New(t, nfs3test.Behaviour{Hook: hook})
			c := connect(t, s)
			newTestFile(t, c)
			err := c.Remove(c.Root, "f")
			if _, ok := errors.AsType[*LostError](err); !ok || !c.Lost() {
				t.Errorf("got %v, want a LostError", err)
			}
			if n := s.Count(nfs.NFSProc3Remove); n != 1 {
				t.Errorf("%d calls", n)
			}
			if _, err := c.GetAttr(c.Root); err == nil {
				t.Error("the connection works")
			}
		})
	}
}

// TestGarbled: half an answer is an error of that call, and of no other.
func TestGarbled(t *testing.T) {
	var garble atomic.Uint32
	hook := func(c nfs3test.Call) (nfs3test.Deed, uint32) {
		if c.Proc == garble.Load() {
			return nfs3test.Garble, 0
		}
		return nfs3test.Do, 0
	}
	s := nfs3test.New(t, nfs3test.Behaviour{Hook: hook})
	c := connect(t, s)
	f := newTestFile(t, c)
	for proc, call := range map[uint32]func() error{
		procGetAttr:        func() error { _, err := f.Size(); return err },
		nfs.NFSProc3Lookup: func() error { _, _, err := c.Lookup(c.Root, "f"); return err },
		nfs.NFSProc3Read:   func() error { _, err := f.ReadAt(make([]byte, 10), 0); return err },
		nfs.NFSProc3Write:  func() error { _, err := f.WriteAt([]byte("0123456789"), 0); return err },
		procReadDir:        func() error { _, err := c.ReadDir(c.Root); return err },
		procFSStat:         func() error { _, err := c.Free(c.Root); return err },
		nfs.NFSProc3FSInfo: c.fsinfo,
		nfs.NFSProc3Commit: f.Sync,
	} {
		garble.Store(proc)
		if err := call(); err == nil || errors.As(err, new(Status)) {
			t.Errorf("procedure %d: %v", proc, err)
		}
		garble.Store(0)
		if _, err := c.GetAttr(c.Root); err != nil {
			t.Fatalf("after procedure %d: %v", proc, err)
		}
	}
}

// TestHang: a server that answers nothing for less than Patience only delays. One that answers nothing for longer has ended.
func TestHang(t *testing.T) { synctest.Test(t, testHang) }

func testHang(t *testing.T) {
	near, far := net.Pipe()
	c := newConn(near, rpc.AuthNull, Patience)
	defer c.close()
	go func() {
		record, err := readRecord(far)
		if err != nil {
			return
		}
		time.Sleep(Patience - time.Second)
		answer := append(record[:4:4], make([]byte, 5*4)...)
		answer[7] = msgReply
		_, _ = far.Write(append([]byte{0x80, 0, 0, byte(len(answer))}, answer...))
		_, _ = readRecord(far) // and no answer
	}()
	if _, err := c.call(1, 1, 1, uint32(0), nil); err != nil {
		t.Errorf("a slow answer: %v", err)
	}
	start := time.Now()
	_, err := c.call(1, 1, 1, uint32(0), nil)
	if took := time.Since(start); !errors.Is(err, errSilent(Patience)) || took != Patience {
		t.Errorf("no answer: %v after %v", err, took)
	}
	_ = far.Close()
}

// TestMount mounts the nearest directory that is exported, finds ports, and says what is wrong.
func TestMount(t *testing.T) {
	s := nfs3test.Start(t, nfs3test.Behaviour{})
	port := s.Port()
	for _, tc := range []struct {
		dir           string
		conf          Config
		mounted, rest string
		has           string
	}{
		{dir: "/export/a/b", conf: Config{Port: port, MountPort: port}, mounted: "/export", rest: "a/b"},
		{dir: "/export", conf: Config{PortmapPort: port}, mounted: "/export"},
		{dir: "/export", conf: Config{Port: port, PortmapPort: port}, mounted: "/export"},
		{dir: "/exprot/a", conf: Config{Port: port, MountPort: port}, has: "exports neither /exprot/a nor a directory above it"},
		{dir: "/export", conf: Config{Port: port, PortmapPort: 1}, has: "the server has no portmapper"},
		{dir: "/export", conf: Config{Dial: func(context.Context, *net.Dialer, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: context.DeadlineExceeded}
		}}, has: "a firewall may hide it"},
	} {
		tc.conf.Host = "127.0.0.1"
		c, err := Mount(t.Context(), tc.conf, tc.dir)
		if tc.has != "" {
			if err == nil || !strings.Contains(err.Error(), tc.has) {
				t.Errorf("%s: %v, want %q", tc.dir, err, tc.has)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.dir, err)
			continue
		}
		if c.Mounted != tc.mounted || c.Rest != tc.rest {
			t.Errorf("%s: mounted %q, rest %q", tc.dir, c.Mounted, c.Rest)
		}
		c.Close()
	}
	whole := nfs3test.Start(t, nfs3test.Behaviour{Exported: "/"})
	if c, err := Mount(t.Context(), Config{Host: "127.0.0.1", Port: whole.Port(), MountPort: whole.Port()}, "/a/b"); err != nil {
		t.Errorf("the server exports all: %v", err)
	} else {
		if c.Mounted != "/" || c.Rest != "a/b" {
			t.Errorf("the server exports all: mounted %q, rest %q", c.Mounted, c.Rest)
		}
		c.Close()
	}
	s2 := nfs3test.Start(t, nfs3test.Behaviour{MountStatus: func() uint32 { return nfs.MNT3ErrAcces }})
	_, err := Mount(t.Context(), Config{Host: "127.0.0.1", Port: s2.Port(), MountPort: s2.Port()}, "/export/a")
	if e, ok := errors.AsType[*MountError](err); !ok || e.Status != nfs.MNT3ErrAcces || !strings.Contains(err.Error(), "to this client") {
		t.Errorf("got %v, want that it is not for this client", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Mount(ctx, Config{Host: "127.0.0.1", Port: port, MountPort: port}, "/export"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestCredentials: the server hears the user and the group that the target names, and no other group.
func TestCredentials(t *testing.T) {
	calls := make(chan nfs3test.Call, 1) // FSINFO is the only one
	hook := func(c nfs3test.Call) (nfs3test.Deed, uint32) { calls <- c; return nfs3test.Do, 0 }
	s := nfs3test.Start(t, nfs3test.Behaviour{Hook: hook})
	u, err := url.Parse(fmt.Sprintf("nfs://%s/export?mountport=%d&uid=12&gid=34", s.Addr, s.Port()))
	if err != nil {
		t.Fatal(err)
	}
	conf, dir, err := ParseURL(u)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Mount(t.Context(), conf, dir)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if heard := <-calls; heard.UID != 12 || heard.GID != 34 {
		t.Errorf("%+v", heard)
	}
	if cred := authUnix(12, 34); !bytes.HasSuffix(cred.Body, []byte{0, 0, 0, 12, 0, 0, 0, 34, 0, 0, 0, 1, 0, 0, 0, 34}) {
		t.Errorf("credentials end in % x", cred.Body)
	}
}

func TestParseURL(t *testing.T) {
	for text, has := range map[string]string{
		"nfs://h/e":                          "",
		"nfs://h:2049/e/p?mountport=1&uid=0": "",
		"nfs://[::1]/e":                      "",
		"nfs://h":                            "host or path is missing",
		"nfs:///e":                           "host or path is missing",
		"nfs://u@h/e":                        "no login",
		"nfs://h/e#x":                        "remove what follows",
		"nfs://h/e/../f":                     `the path has ".."`,
		"nfs://h/e/%2e%2e":                   `the path has ".."`,
		"nfs://h/e..f/./g//":                 "",
		"nfs://h/e?port=2049&mountport=2":    "",
		"nfs://h/e?vers=4":                   `unknown parameter "vers"`,
		"nfs://h/e?uid=-1":                   "uid=-1",
		"nfs://h/e?uid=1&uid=2":              "uid=1,2",
		"nfs://h/e?mountport=0":              "mountport=0",
		"nfs://h:2049/e?port=2":              "port=2,2049",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = ParseURL(u)
		if (err == nil) != (has == "") || err != nil && !strings.Contains(err.Error(), has) {
			t.Errorf("%s: %v, want %q", text, err, has)
		}
	}
}
