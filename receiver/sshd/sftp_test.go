package sshd

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/pkg/sftp"

	"github.com/corehaul/corehaul/receiver/kdumpclients"
)

// sftpServe serves SFTP on a tree over one end of a pipe until that ends.
func sftpServe(tree kdumpclients.Tree, conn net.Conn) (f *files, ended chan struct{}) {
	f, ended = newFiles(tree, func(string, ...any) {}), make(chan struct{})
	server := sftp.NewRequestServer(newLockstep(conn), f.handlers())
	go func() {
		defer close(ended)
		_ = server.Serve() // ends with the pipe
		_ = conn.Close()
	}()
	return f, ended
}

// recorder keeps what is written.
type recorder struct {
	net.Conn
	b bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.b.Write(p)
	return r.Conn.Write(p)
}

// sftpSession has a client do all that clients do, and more, and returns what it sent.
func sftpSession(tb testing.TB, tree *memTree) []byte {
	tb.Helper()
	a, b := net.Pipe()
	_, ended := sftpServe(tree, b)
	rec := &recorder{Conn: a}
	c, err := sftp.NewClientPipe(rec, rec)
	if err != nil {
		tb.Fatal(err)
	}
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Error(err)
		}
	}
	mustNot := func(err error) {
		tb.Helper()
		if err == nil {
			tb.Error("it went well")
		}
	}
	must(c.Mkdir("/d"))
	mustNot(c.Mkdir("/d"))
	file, err := c.Create("/d/f")
	must(err)
	_, err = file.Write(bytes.Repeat([]byte("0123456789"), 10_000))
	must(err)
	must(file.Truncate(50_000))
	must(file.Chmod(0o644))
	must(file.Close())
	must(c.Rename("/d/f", "/d/g"))
	must(c.PosixRename("/d/g", "/d/h"))
	_, err = c.Stat("/d/h")
	must(err)
	_, err = c.Lstat("/d/none")
	mustNot(err)
	list, err := c.ReadDir("/d")
	if err != nil || len(list) != 1 || list[0].Size() != 50_000 {
		tb.Errorf("listed %v, %v", list, err)
	}
	in, err := c.Open("/d/h")
	must(err)
	text, err := io.ReadAll(in)
	if err != nil || string(text) != tree.text(tb, "/d/h") {
		tb.Errorf("read %d bytes, %v", len(text), err)
	}
	must(in.Close())
	mustNot(c.Remove("/d/h"))
	mustNot(c.Symlink("/etc/passwd", "/d/link"))
	mustNot(c.Link("/d/h", "/d/link"))
	_, err = c.ReadLink("/d/h")
	mustNot(err)
	mustNot(c.Truncate("/d/h", 0))
	mustNot(c.RemoveDirectory("/none"))
	must(c.Mkdir("/e"))
	must(c.RemoveDirectory("/e"))
	left, err := c.Create("/d/left")
	must(err)
	_, err = left.Write([]byte("half"))
	must(err)
	for i := range 2 * maxHandles {
		if _, err := c.Open("/d/h"); (err == nil) != (i < maxHandles-1) {
			tb.Errorf("open file %d: %v", i, err)
		}
	}
	_ = c.Close() // with files open
	<-ended
	return rec.b.Bytes()
}

func TestSFTP(t *testing.T) {
	tree := newMemTree()
	sftpSession(t, tree)
	if tree.open != 0 || tree.aborted["/d/left"] == nil || len(tree.aborted) != 1 || tree.text(t, "/d/left") != "half" {
		t.Errorf("%d files open, aborted %v", tree.open, tree.aborted)
	}
}

// FuzzSFTP holds the handlers to their word: whatever comes, all files end, once.
func FuzzSFTP(f *testing.F) {
	whole := sftpSession(f, newMemTree())
	for n := len(whole); n > 20; n -= n / 8 {
		f.Add(whole[:n])
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		tree := newMemTree()
		tree.dirs["/d"] = true
		a, b := net.Pipe()
		files, ended := sftpServe(tree, b)
		go func() { _, _ = io.Copy(io.Discard, a) }()
		_, _ = a.Write(in)
		_ = a.Close()
		<-ended
		if tree.open != 0 || files.open != 0 || len(files.puts) != 0 {
			t.Errorf("%d files are open in the tree, %d here", tree.open, files.open)
		}
	})
}

// Types of SFTP packets, beside those that the server looks at.
const (
	sftpInit     = 1
	sftpOpen     = 3
	sftpClose    = 4
	sftpFsetstat = 10
	sftpOpenDir  = 11
	sftpHandle   = 102
)

// sftpPacket is a request with texts, each behind its length, and numbers behind its id.
func sftpPacket(kind byte, id uint32, parts ...any) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 0, kind}, id)
	for _, part := range parts {
		if text, ok := part.(string); ok {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
			continue
		}
		b, _ = binary.Append(b, binary.BigEndian, part)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// sftpReply reads a reply and returns its kind and what is behind its id.
func sftpReply(tb testing.TB, r io.Reader) (kind byte, body []byte) {
	tb.Helper()
	var size uint32
	if err := binary.Read(r, binary.BigEndian, &size); err != nil {
		tb.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		tb.Fatal(err)
	}
	return b[0], b[5:]
}

// TestSFTPOpenDirectories opens directories and never closes them, as no client does: each would keep its list in memory.
func TestSFTPOpenDirectories(t *testing.T) {
	tree := newMemTree()
	a, b := net.Pipe()
	files, ended := sftpServe(tree, b)
	ask := func(packet []byte) (kind byte, body []byte) {
		if _, err := a.Write(packet); err != nil {
			t.Fatal(err)
		}
		return sftpReply(t, a)
	}
	ask(sftpPacket(sftpInit, 3)) // version 3
	var handles []string
	for id := range uint32(10 * maxHandles) {
		if kind, body := ask(sftpPacket(sftpOpenDir, id, "/")); kind == sftpHandle {
			handles = append(handles, string(body[4:]))
		}
	}
	if len(handles) != maxHandles {
		t.Errorf("%d directories are open, want %d", len(handles), maxHandles)
	}
	ask(sftpPacket(sftpClose, 0, handles[0]))
	if kind, _ := ask(sftpPacket(sftpOpenDir, 0, "/")); kind != sftpHandle {
		t.Error("the place of a directory that was closed is not free")
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	if files.open != 0 {
		t.Errorf("%d are still open", files.open)
	}
}

// heldTree is a tree whose uploads write nothing until release is closed. It notes the calls of its uploads.
type heldTree struct {
	*memTree
	release chan struct{}
	calls   []string
}

type heldUpload struct {
	kdumpclients.Upload
	tree *heldTree
}

func (t *heldTree) note(call string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls = append(t.calls, call)
}

func (t *heldTree) Create(p string) (kdumpclients.Upload, error) {
	u, err := t.memTree.Create(p)
	return &heldUpload{u, t}, err
}

func (u *heldUpload) WriteAt(p []byte, off int64) (int, error) {
	<-u.tree.release
	u.tree.note("write")
	return u.Upload.WriteAt(p, off)
}

func (u *heldUpload) Truncate(size int64) error {
	u.tree.note("truncate")
	return u.Upload.Truncate(size)
}

// TestSFTPKeepsOrder sends two writes, a length and a third write without waiting for answers, as lftp does. The length is set after the
// first two and before the third.
func TestSFTPKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := &heldTree{memTree: newMemTree(), release: make(chan struct{})}
		a, b := net.Pipe()
		_, ended := sftpServe(tree, b)
		write := func(packets ...[]byte) {
			if _, err := a.Write(slices.Concat(packets...)); err != nil {
				t.Error(err)
			}
		}
		write(sftpPacket(sftpInit, 3))
		sftpReply(t, a)
		const forWriting, withSize, noAttrs = uint32(2 | 8), uint32(1), uint32(0)
		write(sftpPacket(sftpOpen, 1, "/f", forWriting, noAttrs))
		kind, body := sftpReply(t, a)
		if kind != sftpHandle {
			t.Fatalf("open: packet %d", kind)
		}
		handle := string(body[4:])
		go write(
			sftpPacket(sftpWrite, 2, handle, uint64(0), "first"), sftpPacket(sftpWrite, 3, handle, uint64(5), "second"),
			sftpPacket(sftpFsetstat, 4, handle, withSize, uint64(20)), sftpPacket(sftpWrite, 5, handle, uint64(11), "third"),
		)
		synctest.Wait() // nothing goes on now before the writes do
		tree.mu.Lock()
		early := len(tree.calls)
		tree.mu.Unlock()
		if early > 0 {
			t.Errorf("%v before the bytes", tree.calls)
		}
		close(tree.release)
		for range 4 {
			sftpReply(t, a)
		}
		if want := []string{"write", "write", "truncate", "write"}; !slices.Equal(tree.calls, want) {
			t.Errorf("%v, want %v", tree.calls, want)
		}
		_ = a.Close()
		<-ended
	})
}
