package debuginfo

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDownloadOnce(t *testing.T) {
	t.Parallel()
	file, dir := fileWith(someID, 300<<10), filepath.Join(t.TempDir(), "not", "yet")
	s := newTestServer(t, file)
	f, said := newTestFinder(t, dir, s.URL+"/")
	if got := mustFind(t, f, file); !got.Downloaded || filepath.Base(got.Name()) != someID.String()+".debug" {
		t.Errorf("got %s, downloaded: %v", got.Name(), got.Downloaded)
	}
	if text := said.String(); !strings.Contains(text, "vmlinux of 300.4 KiB begins: "+s.URL) {
		t.Errorf("told %q", text)
	}
	f, _ = newTestFinder(t, dir, s.URL)
	mustFind(t, f, file)
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("the cache has %q", got)
	}
}

// TestCutAtAnyByte cuts the transfer off at every byte of the headers, and at steps through the rest. Servers without ranges send the
// file again, the others what is missing.
func TestCutAtAnyByte(t *testing.T) {
	t.Parallel()
	file := fileWith(someID, 90<<10)
	var cuts []int
	for c := 0; c < len(file); c += 1 + c/128*128 {
		cuts = append(cuts, c)
	}
	cuts = append(cuts, len(file)-2, len(file)-1)
	for _, ranges := range []bool{false, true} {
		for _, unsized := range []bool{false, true} {
			for _, c := range cuts {
				s := newTestServer(t, file)
				s.ranges, s.unsized, s.tag = ranges, unsized, `"one"`
				s.cut = func(n int64) int {
					if n == 1 {
						return c
					}
					return -1
				}
				f, _ := newTestFinder(t, t.TempDir(), s.URL)
				mustFind(t, f, file)
				if sent := s.sent.Load(); ranges && !unsized && sent > int64(len(file)) {
					t.Errorf("cut at %d: the server sent %d bytes of %d", c, sent, len(file))
				}
				s.Close()
			}
		}
	}
}

// TestCutAlways cuts every transfer off. The next process goes on where the last one ended.
func TestCutAlways(t *testing.T) {
	t.Parallel()
	file, dir := fileWith(someID, 90<<10), t.TempDir()
	s := newTestServer(t, file)
	s.ranges = true
	s.cut = func(int64) int { return 1000 }
	f, _ := newTestFinder(t, dir, s.URL)
	if why := mustFail(t, f); !strings.Contains(why, s.URL) || !strings.Contains(why, "broke") {
		t.Errorf("got %q", why)
	}
	if _, err := os.Stat(filepath.Join(dir, someID.String()+".debug")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a part counts as the file: %v", err)
	}
	before := s.sent.Load()
	s.cut = func(int64) int { return -1 }
	f, said := newTestFinder(t, dir, s.URL)
	mustFind(t, f, file)
	if sent := s.sent.Load() - before; sent != int64(len(file))-before {
		t.Errorf("it sent %d bytes again, of %d", sent, len(file))
	}
	if !strings.Contains(said.String(), "goes on at") {
		t.Errorf("told %q", said)
	}
}

// TestChangedMeanwhile resumes a file of which the server has another version by now.
func TestChangedMeanwhile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newTestServer(t, bytes.Repeat([]byte{1}, 90<<10))
	s.ranges, s.tag = true, `"old"`
	s.cut = func(int64) int { return 50 << 10 }
	f, _ := newTestFinder(t, dir, s.URL)
	mustFail(t, f)
	s.file, s.tag = fileWith(someID, 80<<10), `"new"`
	s.cut = func(int64) int { return -1 }
	f, _ = newTestFinder(t, dir, s.URL)
	mustFind(t, f, s.file)
}

// TestOtherSize resumes from a server without versions, whose file has another size by now.
func TestOtherSize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newTestServer(t, bytes.Repeat([]byte{1}, 90<<10))
	s.ranges = true
	s.cut = func(int64) int { return 50 << 10 }
	f, _ := newTestFinder(t, dir, s.URL)
	mustFail(t, f)
	s.file = fileWith(someID, 300<<10)
	s.cut = func(int64) int { return -1 }
	f, _ = newTestFinder(t, dir, s.URL)
	mustFind(t, f, s.file)
}
