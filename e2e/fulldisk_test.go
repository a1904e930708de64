package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// fulldiskServe starts a receiver whose dumps lie on a small disk (tmpfs) of so many bytes.
func fulldiskServe(t *testing.T, size int64, flags ...string) *judgesStore {
	t.Helper()
	s := judgesNew(t, flags...)
	s.data = fulldiskMount(t, size) // is there until the receiver has ended
	s.start(t)
	return s
}

// fulldiskMount makes a disk of so many bytes, which ends with the test.
func fulldiskMount(t *testing.T, size int64) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("mount a tmpfs, as root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fulldiskBallast takes all but so many bytes of a disk, and returns what gives them back.
func fulldiskBallast(t *testing.T, dir string, leave int64) (remove func()) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	take := int64(st.Bavail)*st.Bsize - leave
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if take > 0 {
		err = unix.Fallocate(int(f.Fd()), 0, 0, take)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// fulldiskCopy copies a dump file and changes the time of the crash, so that it is another dump.
func fulldiskCopy(tb testing.TB, from, to string, n int) {
	tb.Helper()
	in, err := os.Open(from)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = in.Close() }() // only read
	out, err := os.Create(to)
	if err != nil {
		tb.Fatal(err)
	}
	// The notes, and in a kdump file the pointer to VMCOREINFO, are in front of the pages.
	front, err := io.ReadAll(io.LimitReader(in, 1<<20))
	if err != nil {
		tb.Fatal(err)
	}
	key, found := []byte("\nCRASHTIME="), 0
	for at := 0; ; found++ {
		i := bytes.Index(front[at:], key)
		if i < 0 {
			break
		}
		at += i + len(key)
		const digits = 10
		copy(front[at:at+digits], fmt.Sprintf("%0*d", digits, 1_700_000_000+n))
	}
	if found == 0 {
		tb.Fatalf("%s has no CRASHTIME in its first MiB", from)
	}
	_, err = out.Write(front)
	if err == nil {
		_, err = io.Copy(out, in)
	}
	if err := errors.Join(err, out.Close()); err != nil {
		tb.Fatal(err)
	}
}

// TestFullDisk sends a dump to disks that are full before, at and after any of its chunks. The sender
// goes to its next target; what was acknowledged is sealed and is the same as in the original.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	elf := failoverELF(t)
	const mib = 1 << 20
	states := map[string]int{}
	sizes := []int64{mib, 6 * mib, 11 * mib} // too small for any of it
	for i := 0; i < len(sizes); i++ {
		size := sizes[i]
		s := fulldiskServe(t, size, "--resume-grace", "2s")
		second := judgesNew(t)
		second.ca, second.identity = s.ca, s.identity
		second.start(t)
		p := serveSend(t, nil, "--to", s.target, "--to", second.target, "--identity", s.identity, "--encoding", "snappy", elf)
		if code, _ := p.wait(t); code != 0 {
			t.Fatalf("%d bytes: the sender: exit code %d\n%s", size, code, p.said())
		}
		if list := s.list(t); len(list) > 0 && list[0].Manifest.Pages.Planned > 0 {
			fulldiskBallast(t, s.data, 0) // others take the rest before the seal, for which there is room set aside
		}
		state, pages := s.fulldiskLeft(t, elf)
		states[state]++
		t.Logf("%.1f MiB: %s, %d pages on the full disk", float64(size)/mib, state, pages)
		if state == "complete" {
			break
		}
		if !strings.Contains(p.said(), "no-space") {
			t.Errorf("%d bytes: the sender was not told:\n%s", size, p.said())
		}
		next := second.one(t)
		got := fulldiskCompare(t, filepath.Join(next.Path, "vmcore"), elf)
		if i == 0 { // now it is known how much the dump takes
			st, err := os.Stat(filepath.Join(next.Path, "vmcore"))
			if err != nil {
				t.Fatal(err)
			}
			const first, steps = 12 * mib, 12
			last := st.Size() + 8*mib
			for n := range int64(steps + 1) {
				sizes = append(sizes, first+(last-first)*n/steps)
			}
		}
		if m := next.Manifest; m.State != "complete" || got != m.Pages.Planned || got < 20_000 {
			t.Errorf("%d bytes: on the next target: %s, %d pages of %d", size, m.State, got, m.Pages.Planned)
		}
		s.end(t)
		second.end(t)
	}
	if states["complete"] == 0 || states["partial"] < 3 || states["log-only"] == 0 {
		t.Errorf("ends were %v: not every kind of end was seen", states)
	}
}

// fulldiskLeft waits until what a full disk has is sealed, checks it and returns what there is.
func (s *judgesStore) fulldiskLeft(t *testing.T, elf string) (state string, pages uint64) {
	t.Helper()
	serveWait(t, "the seal", func() bool {
		list := s.list(t)
		return len(list) == 0 || list[0].Manifest.State != "arriving"
	})
	list := s.list(t)
	if len(list) == 0 {
		return "nothing", 0
	}
	d := list[0]
	code := map[string]int{"complete": 0, "partial": 3, "log-only": 3}[d.Manifest.State]
	judgesRun(t, code, "corehaul", "verify", "--data", s.data, d.ID)
	if d.Manifest.State == "log-only" {
		return d.Manifest.State, 0
	}
	pages = fulldiskCompare(t, filepath.Join(d.Path, "vmcore"), elf)
	if pages != d.Manifest.Pages.Present {
		t.Errorf("%d pages in the file, %d in the manifest", pages, d.Manifest.Pages.Present)
	}
	return d.Manifest.State, pages
}

// fulldiskCompare compares every page of a stored dump with the original, and counts them.
func fulldiskCompare(t *testing.T, path, elf string) (n uint64) {
	t.Helper()
	got, err := dumpfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Close() }() // only read
	want, err := dumpfile.Open(elf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = want.Close() }() // only read
	a, b := make([]byte, want.Info().PageSize), make([]byte, want.Info().PageSize)
	for e, err := range got.Pages() {
		if err != nil {
			t.Fatal(err)
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			if err := errors.Join(got.ReadPage(a, pfn), want.ReadPage(b, pfn)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a, b) {
				t.Fatalf("the contents of pfn %#x are not the original's", uint64(pfn))
			}
			n++
		}
	}
	return n
}

// TestFullDiskWaits makes room on a disk that ran full to its reserve: the sender, which has no other target, waits and
// goes on where it was. Meanwhile a log is taken, which fits, and another dump waits behind it.
func TestFullDiskWaits(t *testing.T) {
	t.Parallel() // it waits more than it computes
	elf := failoverELF(t)
	calm := judgesServe(t)
	small := filepath.Join(t.TempDir(), "small")
	fulldiskCopy(t, filepath.Join(calm.send(t, elf, "31"), "vmcore"), small, 1)
	const mib = 1 << 20
	s := fulldiskServe(t, 200*mib, "--max-active", "1", "--resume-grace", "5m", "--reserve", "4MiB") // logs fit into the reserve
	other := s.issue(t, "web-18")
	room := fulldiskBallast(t, s.data, 24*mib)
	to := []string{"--to", s.target, "--encoding", "snappy", "--patience", "10m"}
	p := serveSend(t, nil, append(to, "--identity", s.identity, elf)...)
	serveWait(t, "the sender to wait", func() bool { return strings.Contains(p.said(), "no room") })
	if !strings.Contains(p.said(), "no-space") {
		t.Error("the disk was not full in the middle of the dump")
	}
	if m := s.one(t).Manifest; m.State != "arriving" {
		t.Errorf("state %q while it waits, want arriving", m.State)
	}
	judgesRun(t, 0, "corehaul-send", "send", "--to", s.target, "--identity", other, "--log-only", small)
	second := serveSend(t, nil, append(to, "--identity", other, small)...)
	serveWait(t, "the second sender to wait", func() bool { return strings.Contains(second.said(), "waiting, place") })
	room()
	for _, p := range []*serveSender{p, second} {
		if code, _ := p.wait(t); code != 0 {
			t.Fatalf("a sender: exit code %d\n%s", code, p.said())
		}
		t.Logf("a sender said\n%s", p.said())
	}
	dumps := s.list(t)
	if len(dumps) != 2 {
		t.Errorf("%d dumps, want 2", len(dumps))
	}
	for _, d := range dumps {
		if d.Manifest.State != "complete" {
			t.Errorf("%s/%s is %s", d.Host, d.ID, d.Manifest.State)
		}
		judgesRun(t, 0, "corehaul", "verify", "--data", s.data, d.ID)
		fulldiskCompare(t, filepath.Join(d.Path, "vmcore"), map[string]string{"web-17": elf, "web-18": small}[d.Host])
	}
}
