package crashtree_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/crashtree"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// small is a dump of a machine with a few pages.
func small(seed uint64) []byte {
	return (&vmcoretest.Kdump{Utsname: [6]string{"Linux", "web1", "6.1", "#1", "x86_64"}, NrCPUs: 1, Pages: vmcoretest.Pages(seed, 4, 4096)}).Bytes()
}

// TestLogBesideUnreadable does not take a log for all that there is of a crash if a dump lies beside it that cannot be read now.
func TestLogBesideUnreadable(t *testing.T) {
	tr := newTree(t)
	tr.put("192.0.2.1-2026-11-25-08:00:00/vmcore-dmesg.txt", []byte(logText))
	tr.put("192.0.2.2-2026-11-25-08:00:00/vmcore-dmesg.txt", []byte(logText))
	busy := tr.put("192.0.2.1-2026-11-25-08:00:00/vmcore", small(1))
	if err := os.Symlink(busy, filepath.Join(tr.root, "192.0.2.2-2026-11-25-08:00:00/vmcore")); err != nil {
		t.Fatal(err)
	}
	// A write lease makes every other open fail, that of root too.
	f, err := os.OpenFile(busy, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	tr.want(map[string][2]string{
		"192.0.2.1-2026-11-25-08:00:00/vmcore": {"failed", "temporarily unavailable"},
		"192.0.2.2-2026-11-25-08:00:00/vmcore": {"left out", "not a regular file"},
	})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	tr.want(map[string][2]string{"192.0.2.1-2026-11-25-08:00:00/vmcore": {"imported complete"}}, filepath.Dir(busy))
}

// TestNamedLog imports the dump that a named log belongs to, as for a glob that names every file.
func TestNamedLog(t *testing.T) {
	tr := newTree(t)
	a, b := tr.put("x/vmcore", small(1)), tr.put("x/vmcore-dmesg.txt", []byte(logText))
	alone := tr.put("y/vmcore-dmesg.txt", []byte(logText))
	got := tr.want(map[string][2]string{"x/vmcore": {"imported complete"}}, b)
	if e := tr.entry(got["x/vmcore"]); e.Manifest.Bytes.Log != int64(len(logText)) {
		t.Errorf("%+v", e.Manifest)
	}
	tr.want(map[string][2]string{"x/vmcore": {"present complete"}}, a)
	tr.im.Host = "n1"
	tr.want(map[string][2]string{"y": {"imported log-only", "only the log"}}, alone)
}

// TestStrangeBeside says which files with the name of a dump are none, whatever lies beside them.
func TestStrangeBeside(t *testing.T) {
	tr := newTree(t)
	tr.put("a/core", small(1))
	tr.put("a/vmcore", make([]byte, 8192))
	tr.put("b/vmcore", []byte("a few bytes of a full disk"))
	tr.put("c/vmcore", nil)
	tr.put("c/vmcore.flat", small(2))
	tr.want(map[string][2]string{
		"a/core": {"imported complete"}, "a/vmcore": {"failed", "not a vmcore"},
		"b/vmcore": {"failed", "not a vmcore"},
		"c/vmcore": {"left out", "empty"}, "c/vmcore.flat": {"imported complete"},
	})
}

// TestSuperseded leaves out what kdump did not finish only where it finished the same by another name.
func TestSuperseded(t *testing.T) {
	tr := newTree(t)
	tr.put("debian/dump-incomplete", small(1))
	tr.put("debian/dump.202611250800", small(2))
	tr.put("redhat/vmcore-incomplete", small(3))
	tr.put("redhat/vmcore", small(4))
	tr.put("mixed/db1-vmcore", small(5))
	tr.put("mixed/web1-vmcore-incomplete", small(6))
	tr.put("mixed/web2.part", small(7))
	tr.want(map[string][2]string{
		"debian/dump-incomplete": {"left out", "did not finish"}, "debian/dump.202611250800": {"imported complete"},
		"redhat/vmcore-incomplete": {"left out", "did not finish"}, "redhat/vmcore": {"imported complete"},
		"mixed/db1-vmcore": {"imported complete"}, "mixed/web1-vmcore-incomplete": {"imported partial", "its name says"},
		"mixed/web2.part": {"imported partial", "its name says"},
	})
}

// TestUnfinishedELF does not call an ELF core complete that kdump did not finish, though it is as long as its headers say: after a crash of
// the file system, its end may be zeros.
func TestUnfinishedELF(t *testing.T) {
	tr := newTree(t)
	pages := vmcoretest.Pages(1, 256, 4096)
	whole := (&vmcoretest.Core{Notes: vmcoretest.VMCOREINFO(binary.LittleEndian, "PAGESIZE=4096\n"), Loads: []vmcoretest.Load{{Data: pages}}}).Bytes()
	zeros := slices.Clone(whole)
	last := pages[254*4096 : 255*4096]
	clear(zeros[bytes.Index(zeros, last):][:len(last)])
	path := tr.put("d/vmcore-incomplete", zeros)
	tr.put("suse/README.txt", []byte("If you see this text the crash dump is likely incomplete."))
	suse := tr.put("suse/vmcore", small(1))
	tr.im.Host = "n1"
	got := tr.want(map[string][2]string{"d/vmcore-incomplete": {"imported partial", "its name says"}}, path)
	tr.want(map[string][2]string{"suse/vmcore": {"imported partial", "README.txt says"}}, suse)
	// A whole file with other bytes in the same pages does not make complete what is stored.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again := tr.want(map[string][2]string{"d/vmcore": {"present partial", "its name says"}}, tr.put("d/vmcore", whole))
	if again["d/vmcore"].Ref != got["d/vmcore-incomplete"].Ref {
		t.Error("the last page is a part of the id, so this tests nothing")
	}
}

// TestLogAlone waits with a directory that has only a log so far, and gives up on a dump that was renamed meanwhile.
func TestLogAlone(t *testing.T) {
	tr := newTree(t)
	log := tr.put("192.0.2.1-2026-11-25-08:00:00/vmcore-dmesg.txt", []byte(logText))
	empty := tr.put("192.0.2.2-2026-11-25-08:00:00/vmcore", nil)
	tr.put("192.0.2.2-2026-11-25-08:00:00/vmcore-dmesg.txt", []byte(logText))
	tr.put("192.0.2.3-2026-11-25-08:00:00/kexec-dmesg.log", []byte("x"))
	for _, path := range []string{log, empty, filepath.Join(tr.root, "192.0.2.3-2026-11-25-08:00:00/kexec-dmesg.log")} {
		if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	tr.want(map[string][2]string{
		"192.0.2.1-2026-11-25-08:00:00":        {"later", "may still be written"},
		"192.0.2.2-2026-11-25-08:00:00/vmcore": {"later", "may still be written"},
		"192.0.2.3-2026-11-25-08:00:00":        {"later", "may still be written"},
	})
	o, err := tr.im.Import(t.Context(), crashtree.Found{Dir: tr.root, Images: []string{"vmcore-incomplete"}})
	if err != nil || o.Result != crashtree.Later {
		t.Errorf("a file that was renamed: %+v, %v", o, err)
	}
}

// TestUsefulHosts prefers names that tell machines apart.
func TestUsefulHosts(t *testing.T) {
	tr := newTree(t)
	of := func(seed uint64, nodename string) []byte {
		return (&vmcoretest.Kdump{Utsname: [6]string{"Linux", nodename, "6.1", "#1", "x86_64"}, NrCPUs: 1, Pages: vmcoretest.Pages(seed, 4, 4096)}).Bytes()
	}
	seed := uint64(0)
	for path, host := range map[string]string{
		"192.0.2.1-2026-11-25-08:00:00/vmcore": "192.0.2.1", "127.0.0.1-2026-11-25-08:00:00/vmcore": "localhost.localdomain",
		"db1-202611250800/dump.202611250800": "db1",
	} {
		seed++
		nodename := "localhost.localdomain"
		if host == "db1" {
			nodename = "no host/name"
		}
		if o := tr.run(tr.put(path, of(seed, nodename)))[path]; o.Result != crashtree.Imported || o.Host != host {
			t.Errorf("%s: %+v, want %s", path, o, host)
		}
	}
}

// TestSealedStays does not remove a sealed dump because the file for which it was opened again changes or does not fit.
func TestSealedStays(t *testing.T) {
	tr := newTree(t)
	path := tr.put("d/vmcore-incomplete", small(1))
	got := tr.run()["d/vmcore-incomplete"]
	whole := filepath.Join(tr.root, "d/vmcore")
	if err := os.Rename(path, whole); err != nil {
		t.Fatal(err)
	}
	im := tr.im
	im.Store = &touching{Store: tr.im.Store, path: whole}
	o, err := im.Import(t.Context(), crashtree.Found{Dir: filepath.Dir(whole), Images: []string{"vmcore"}})
	if err != nil || o.Result != crashtree.Later {
		t.Errorf("%+v, %v", o, err)
	}
	tr.entry(got)
	tr.want(map[string][2]string{"d/vmcore": {"imported complete"}})
}

// TestTwoImports leaves a dump that another import is writing.
func TestTwoImports(t *testing.T) {
	tr := newTree(t)
	path := tr.put("d/vmcore", small(1))
	found := crashtree.Found{Dir: filepath.Dir(path), Images: []string{"vmcore"}}
	other := tr.im
	var second crashtree.Outcome
	tr.im.Progress = func(string, uint64, uint64) {
		var err error
		if second, err = other.Import(t.Context(), found); err != nil {
			t.Error(err)
		}
	}
	first, err := tr.im.Import(t.Context(), found)
	if err != nil || first.Result != crashtree.Imported || second.Result != crashtree.Later || second.Ref != first.Ref {
		t.Errorf("%+v, then %+v, %v", first, second, err)
	}
	tr.entry(first)
}

// ending is a context that ends when it was asked some times.
type ending struct {
	context.Context
	left atomic.Int64
}

func (e *ending) Err() error {
	if e.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// TestInterruptedLook ends while the records of a flattened file are walked, which takes minutes with that of a large machine.
func TestInterruptedLook(t *testing.T) {
	tr := newTree(t)
	flat := vmcoretest.Flatten(vmcoretest.Sample(t, zlib), 200)
	path := tr.put("d/vmcore.flat", flat)
	ctx := &ending{Context: t.Context()}
	ctx.left.Store(int64(len(vmcoretest.Records(flat)) / 2))
	o, err := tr.im.Import(ctx, crashtree.Found{Dir: filepath.Dir(path), Images: []string{"vmcore.flat"}})
	if !errors.Is(err, context.Canceled) || o.ID != "" {
		t.Errorf("%+v, %v", o, err)
	}
	tr.want(map[string][2]string{"d/vmcore.flat": {"imported complete"}})
}

// touching is a store that changes a file when a dump is opened again.
type touching struct {
	storage.Store
	path string
}

func (s *touching) Resume(ctx context.Context, ref storage.Ref, o storage.ResumeOptions) (*dumpdir.Writer, error) {
	if err := os.Chtimes(s.path, time.Time{}, time.Now()); err != nil {
		return nil, err
	}
	return s.Store.Resume(ctx, ref, o)
}

// TestPeer names the file of a dump so that it is found again, and lists a dump without a time by the time of its file.
func TestPeer(t *testing.T) {
	tr := newTree(t)
	path := tr.put("x/vmcore", small(1))
	t.Chdir(tr.root)
	o, err := tr.im.Import(t.Context(), crashtree.Found{Dir: "x", Images: []string{"vmcore"}})
	if err != nil || o.Result != crashtree.Imported {
		t.Fatalf("%+v, %v", o, err)
	}
	e := tr.entry(o)
	if e.Manifest.Peer != path || time.Since(e.When()) < 50*time.Minute {
		t.Errorf("%+v", e.Manifest)
	}
}

// TestOwnData leaves out the data directory that it imports into: files of clients lie there until serve has made dumps of them.
func TestOwnData(t *testing.T) {
	tr := newTree(t)
	tr.put("lib/data/clients/web1/1.file", small(1))
	tr.put("lib/vmcore", small(2))
	data := filepath.Join(tr.root, "lib/data")
	var left []string
	err := crashtree.Walk(t.Context(), []string{tr.root}, crashtree.Visitor{
		Data: data,
		Dump: func(f crashtree.Found) error {
			if f.Dir != filepath.Dir(data) {
				t.Errorf("%+v", f)
			}
			return nil
		},
		Skip: func(path string, why error) error {
			left = append(left, path)
			if !crashtree.IsLeftOut(why) {
				t.Errorf("%s: %v", path, why)
			}
			return nil
		},
	})
	if err != nil || len(left) != 1 || left[0] != data {
		t.Errorf("%q, %v", left, err)
	}
}

// TestOtherFileSystem leaves out another file system, and says so.
func TestOtherFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	tr := newTree(t)
	tr.put("vmcore", small(1))
	at := filepath.Join(tr.root, "mnt")
	if err := errors.Join(os.Mkdir(at, 0o700), syscall.Mount("none", at, "tmpfs", 0, "size=1m")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(at, 0) })
	tr.put("mnt/vmcore", small(2))
	tr.want(map[string][2]string{"vmcore": {"imported complete"}, "mnt": {"left out", "another file system"}})
	tr.want(map[string][2]string{"mnt/vmcore": {"imported complete"}}, at)
}

// TestManyDirectories finds what is in 10,000 directories, and in 10,000 files of one.
func TestManyDirectories(t *testing.T) {
	tr := newTree(t)
	for i := range 10000 {
		name := filepath.Join(tr.root, "many", time.Unix(int64(i)*60, 0).UTC().Format("200601021504"))
		if err := os.MkdirAll(name, 0o700); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			if err := os.WriteFile(filepath.Join(name, "dump."+filepath.Base(name)), small(1), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := 0
	count := crashtree.Visitor{
		Dump: func(crashtree.Found) error { n++; return nil },
		Skip: func(path string, why error) error { return why },
	}
	if err := crashtree.Walk(t.Context(), []string{tr.root}, count); err != nil || n != 10 {
		t.Errorf("%d dumps, %v", n, err)
	}
}

// BenchmarkNamedFiles names every file of a directory, as a shell's pattern does.
func BenchmarkNamedFiles(b *testing.B) {
	dir := b.TempDir()
	var paths []string
	for i := range 500 {
		path := filepath.Join(dir, "core"+string(rune('0'+i%10))+time.Unix(int64(i), 0).UTC().Format("150405"))
		if err := os.WriteFile(path, small(uint64(i)), 0o600); err != nil {
			b.Fatal(err)
		}
		paths = append(paths, path)
	}
	for b.Loop() {
		n := 0
		err := crashtree.Walk(b.Context(), paths, crashtree.Visitor{Dump: func(crashtree.Found) error { n++; return nil }})
		if err != nil || n != len(paths) {
			b.Fatal(n, err)
		}
	}
}

// TestManyBeside keeps the logs of a dump in a directory of many other files, and says in one line that most are not kept.
func TestManyBeside(t *testing.T) {
	tr := newTree(t)
	tr.put("d/vmcore", small(1))
	tr.put("d/kexec-dmesg.log", []byte("the capture kernel"))
	for i := range 200 {
		tr.put(fmt.Sprintf("d/a%03d", i), []byte("x"))
	}
	o := tr.want(map[string][2]string{"d/vmcore": {"imported complete"}})["d/vmcore"]
	if len(o.NotKept) != 1 || !strings.Contains(o.NotKept[0], "137 more files") {
		t.Errorf("%d lines: %q", len(o.NotKept), o.NotKept[:min(2, len(o.NotKept))])
	}
	if b, err := os.ReadFile(filepath.Join(tr.entry(o).Path, "files", "kexec-dmesg.log")); err != nil || string(b) != "the capture kernel" {
		t.Errorf("%q, %v", b, err)
	}
}
