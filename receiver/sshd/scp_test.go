package sshd

import (
	"strings"
	"testing"
)

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
		{"scp -t /made/", "C0644 2 x\nhi\x00", 0, "\x00\x00\x00"},
		{"scp -d -t /new", "", 1, "\x02scp: /new: Not a directory\n"},
		{"scp -t /d", "C0644 2 libssh2\nhi", 0, "\x00\x00\x00"},
		{"scp -t /d", "C0644 3 short\nhi", 1, "\x00\x00\x02scp: /d: "},
		{"scp -t /none/x", "C0644 2 x\n", 1, "\x00\x02scp: /none/x: No such file or directory\n"},
		{"scp -r -t /d", "D0755 0 sub\n", 1, "\x02scp: directories cannot be copied"},
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
		{"scp -r -f /d", "\x00", 1, "\x02scp: directories cannot be copied"},
	} {
		status, out, _ := testShell(t, tree, tc.line, tc.in, nil)
		if status != tc.status || !strings.HasPrefix(out, tc.out) {
			t.Errorf("%q %.40q: status %d, out %q", tc.line, tc.in, status, out)
		}
	}
	if tree.text(t, "/d/name") != "hello" || tree.text(t, "/d/a b") != "hi" || tree.text(t, "/new") != "hi" || tree.text(t, "/made/x") != "hi" || tree.text(t, "/d/libssh2") != "hi" || tree.open != 0 {
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
