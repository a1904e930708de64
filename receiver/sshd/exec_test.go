package sshd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"

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
		if status, _, _ := testShell(t, tree, "scp -t /f", in, io.ErrUnexpectedEOF); status == 0 || tree.aborted["/f"] == nil {
			t.Errorf("scp %q: status %d, aborted %v", in, status, tree.aborted)
		}
	}
}

// TestReasons has errors of a tree in the words of Unix programs.
func TestReasons(t *testing.T) {
	for err, want := range map[error]string{
		&fs.PathError{Op: "rmdir", Path: "/d", Err: syscall.ENOTEMPTY}: "Directory not empty",
		&fs.PathError{Op: "mkdir", Path: "/f/d", Err: syscall.ENOTDIR}: "Not a directory",
		&fs.PathError{Op: "create", Path: "/d", Err: syscall.EISDIR}:   "Is a directory",
		fmt.Errorf("%w: 257 MiB", syscall.EFBIG):                       "File too large",
		fs.ErrExist:                                                    "File exists", errors.New("a secret path"): "Input/output error",
	} {
		if got := reason(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
