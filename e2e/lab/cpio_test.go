package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// This test checks one file byte by byte against the kernel's buffer-format.rst, because
// cpio(1) is not on every machine. In TestCaptureELF the kernel unpacks such an archive.
func TestCPIOLayout(t *testing.T) {
	var b bytes.Buffer
	c := &cpioWriter{w: &b}
	c.file("/a/bc", []byte("hello"))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"070701" + "00000001" + "000041ED" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000002" + "00000000" + "a\x00" +
		"070701" + "00000002" + "000081ED" + "00000000" + "00000000" + "00000001" + "00000000" + "00000005" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000005" + "00000000" + "a/bc\x00" + "\x00" +
		"hello" + "\x00\x00\x00"
	if got := b.String()[:len(want)]; got != want {
		t.Errorf("archive begins %q, want %q", got, want)
	}
	if b.Len()%4 != 0 || !bytes.Contains(b.Bytes()[len(want):], []byte("TRAILER!!!\x00")) {
		t.Errorf("archive of %d bytes has no trailer or is not padded", b.Len())
	}
}

func TestCPIOErrorSticks(t *testing.T) {
	f, err := os.Open(filepath.Join(t.TempDir(), "."))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	c := &cpioWriter{w: f} // a directory, open for reading
	c.file("/init", []byte("x"))
	if c.Close() == nil {
		t.Error("writing to a directory worked")
	}
}
