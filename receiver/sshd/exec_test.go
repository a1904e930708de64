package sshd

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/pkg/sftp"

	"github.com/corehaul/corehaul/receiver/sshd/command"
)

// testShell runs a command line on a tree.
func testShell(tb testing.TB, tree *memTree, line, in string, alive error) (status uint32, out, errs string) {
	tb.Helper()
	script, err := command.Parse(line)
	if err != nil {
		tb.Fatalf("%q: %v", line, err)
	}
	var stdout, stderr bytes.Buffer
	sh := &shell{
		tree: tree, in: strings.NewReader(in), out: &stdout, errs: &stderr,
		alive: func() error { return alive }, note: func(string, ...any) {},
	}
	return sh.run(script), stdout.String(), stderr.String()
}

func (t *memTree) text(tb testing.TB, p string) string {
	tb.Helper()
	f := t.files[p]
	if f == nil {
		tb.Fatalf("no file %s", p)
	}
	b := make([]byte, f.Size())
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		tb.Fatal(err)
	}
	return string(b)
}

func TestShell(t *testing.T) {
	tree := newMemTree()
	for _, tc := range []struct {
		line, in  string
		status    uint32
		out, errs string // what they contain
	}{
		{"mkdir -p /d", "", 0, "", ""},
		{"mkdir /d", "", 1, "", "mkdir: cannot create directory '/d': File exists\n"},
		{"mkdir /d && cat > /d/never", "x", 1, "", "File exists"},
		{"mkdir /d; cat > /d/after", "x", 0, "", "File exists"},
		{"umask 077; mkdir -p /d && cat > /d/README.txt", "text", 0, "", ""},
		{"umask 0077 && dd bs=512 of='/d/vmcore'", strings.Repeat("y", 1030), 0, "", "2+1 records in\n2+1 records out\n1030 bytes (1.0 kB, 1.0 KiB) copied, "},
		{"dd of=/none/x", "z", 1, "", "dd: failed to write '/none/x': No such file or directory\n"},
		{"dd of=/d/big", strings.Repeat("z", memRoom+1), 1, "", "No space left on device\n"},
		{"mv /d/vmcore /d/vmcore.flat", "", 0, "", ""},
		{"mv /d/vmcore /d/vmcore.flat", "", 1, "", "mv: cannot move '/d/vmcore' to '/d/vmcore.flat': No such file or directory\n"},
		{"ls -l /d/vmcore.flat", "", 0, "-rw------- 1 root root 1030 Nov 14 22:13 /d/vmcore.flat\n", ""},
		{"ls -l /d", "", 0, "total 0\n-rw-------", ""},
		{"ls -l /none", "", 2, "", "ls: cannot access '/none': No such file or directory\n"},
		{"mktemp -dqp /d", "", 0, "/d/tmp.1\n", ""},
		{"rmdir /d/tmp.1", "", 0, "", ""},
		{"rmdir /d/tmp.1", "", 1, "", "rmdir: failed to remove"},
		{"df --output=avail /d", "", 0, "     Avail\n   5242880\n", ""},
		{"df -P /d", "", 0, " 5242880 ", ""},
		{"echo fail kdump_test_id=7 > /d/status", "", 0, "", ""},
		{"exit; mkdir /never", "", 0, "", ""},
		{"rmdir /none; exit", "", 1, "", "rmdir"},
	} {
		status, out, errs := testShell(t, tree, tc.line, tc.in, nil)
		if status != tc.status || !strings.Contains(out, tc.out) || !strings.Contains(errs, tc.errs) || tc.out == "" && out != "" {
			t.Errorf("%q: status %d, out %q, err %q", tc.line, status, out, errs)
		}
	}
	if got := tree.text(t, "/d/status"); got != "fail kdump_test_id=7\n" {
		t.Errorf("status file %q", got)
	}
	if tree.files["/d/never"] != nil || tree.dirs["/never"] || tree.text(t, "/d/after") != "x" || tree.text(t, "/d/README.txt") != "text" || tree.open != 0 {
		t.Errorf("the tree is %+v", tree)
	}
	if tree.aborted["/d/big"] == nil || len(tree.aborted) != 1 {
		t.Errorf("ended out of order: %v", tree.aborted)
	}
}

// TestShellBrokenOff has the connection break where the client's data ends.
func TestShellBrokenOff(t *testing.T) {
	tree := newMemTree()
	for _, line := range []string{"cat > /f", "dd of=/f"} {
		delete(tree.aborted, "/f")
		if status, _, _ := testShell(t, tree, line, "half", io.ErrUnexpectedEOF); status == 0 || tree.aborted["/f"] == nil || tree.text(t, "/f") != "half" {
			t.Errorf("%q: status %d, aborted %v", line, status, tree.aborted)
		}
	}
	for _, in := range []string{"C0644 4 f\nha", "C0644 4 f\nhalf", "C0644 4 f\nhalf\x01scp: read: error\n"} {
		delete(tree.aborted, "/f")
		if status, _, _ := testShell(t, tree, "scp -t /f", in, nil); status == 0 || tree.aborted["/f"] == nil {
			t.Errorf("scp %q: status %d, aborted %v", in, status, tree.aborted)
		}
	}
}

func TestSCP(t *testing.T) {
	tree := newMemTree()
	tree.dirs["/d"] = true
	for _, tc := range []struct {
		line, in string
		status   uint32
		out      string
	}{
		{"scp -t /d", "C0644 5 name\nhello\x00", 0, "\x00\x00\x00"},
		{"scp -p -t /d/", "T1 0 1 0\nC0644 2 a b\nhi\x00C0600 0 empty\n\x00", 0, "\x00\x00\x00\x00\x00\x00"},
		{"scp -t /new", "C0644 2 ignored\nhi\x00", 0, "\x00\x00\x00"},
		{"scp -t /none/", "", 1, "\x02scp: /none/: Not a directory\n"},
		{"scp -d -t /new", "", 1, "\x02scp: /new: Not a directory\n"},
		{"scp -t /none/x", "C0644 2 x\n", 1, "\x00\x02scp: /none/x: No such file or directory\n"},
		{"scp -r -t /d", "D0755 0 sub\n", 1, "\x02scp: directories are not copied here"},
		{"scp -t /d", "D0755 0 sub\n", 1, "\x00\x02scp: directories"},
		{"scp -t /d", "C0644 1 ../x\n", 1, "\x00\x02scp: protocol error"},
		{"scp -t /d", "C0644 -1 x\n", 1, "\x00\x02scp: protocol error"},
		{"scp -t /d", "C0644 9223372036854775808 x\n", 1, "\x00\x02scp: protocol error"},
		{"scp -t /d", "C0644 9223372036854775807 huge\n" + strings.Repeat("z", 2*memRoom), 1, "\x00\x00\x02scp: /d/huge: No space left on device\n"},
		{"scp -t /d", strings.Repeat("C", 2*scpLine), 1, "\x00\x02scp: protocol error"},
		{"scp -t /d", "\n", 1, "\x00\x02scp: protocol error"},
		{"scp -t /d", "\x02bye\n", 1, "\x00\x02scp: the client gave up"},
		{"scp -f /d/name", "\x00\x00\x00", 0, "C0600 5 name\nhello\x00"},
		{"scp -p -f /d/name", "\x00\x00\x00\x00", 0, "T1700000000 0 1700000000 0\nC0600 5 name\nhello\x00"},
		{"scp -f /none", "\x00", 1, "\x02scp: /none: No such file or directory\n"},
		{"scp -f /d", "\x00", 1, "\x02scp: /d: not a regular file\n"},
		{"scp -r -f /d", "\x00", 1, "\x02scp: directories are not copied here"},
	} {
		status, out, _ := testShell(t, tree, tc.line, tc.in, nil)
		if status != tc.status || !strings.HasPrefix(out, tc.out) {
			t.Errorf("%q %.40q: status %d, out %q", tc.line, tc.in, status, out)
		}
	}
	if tree.text(t, "/d/name") != "hello" || tree.text(t, "/d/a b") != "hi" || tree.text(t, "/new") != "hi" || tree.open != 0 {
		t.Errorf("the tree is %+v", tree)
	}
}

// FuzzSCP holds the reader of scp to its word: all files end, once, and within their directory.
func FuzzSCP(f *testing.F) {
	for _, seed := range []string{
		"C0644 5 name\nhello\x00", "T1 0 1 0\nC0644 2 a\nhi\x00C0600 0 b\n\x00", "D0755 0 sub\nC0644 1 x\nx\x00E\n", "C0644 9 x\nshort", "\x01warn\nC0644 1 y\nz\x01no\n",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte("\x00\x00\x00"), false)
	}
	f.Fuzz(func(t *testing.T, in []byte, take bool) {
		tree := newMemTree()
		tree.dirs["/d"] = true
		line := "scp -f /d/x"
		if take {
			line = "scp -p -t /d"
		}
		status, _, _ := testShell(t, tree, line, string(in), nil)
		if tree.open != 0 {
			t.Errorf("%d files are left open", tree.open)
		}
		for name := range tree.files {
			if !strings.HasPrefix(name, "/d/") || strings.Count(name, "/") != 2 {
				t.Errorf("a file %q", name)
			}
		}
		if status == 0 && len(tree.aborted) > 0 {
			t.Errorf("success, though %v", tree.aborted)
		}
	})
}

// sftpServe serves SFTP on a tree over one end of a pipe until that ends.
func sftpServe(tree *memTree, conn net.Conn) (f *files, ended chan struct{}) {
	f, ended = newFiles(tree, slog.New(slog.DiscardHandler)), make(chan struct{})
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
