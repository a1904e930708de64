package crashtree_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/corehaul/corehaul/crashtree"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const logText = "[    0.0] Linux version 6.1.0\n[    9.0] Kernel panic - not syncing: sysrq triggered crash\n"

// tree is a directory for a test, and a store.
type tree struct {
	t    *testing.T
	root string
	data string
	im   crashtree.Importer
}

func newTree(t *testing.T) *tree {
	t.Helper()
	data := t.TempDir()
	store, err := local.Open(t.Context(), data, storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return &tree{t: t, root: t.TempDir(), data: data, im: crashtree.Importer{
		Store: store, Room: admission.NewRoom(store, admission.Limits{}, nil), Codec: kdumpfile.Snappy, Tool: "test",
	}}
}

// put writes a file that was finished an hour ago.
func (tr *tree) put(name string, b []byte) string {
	tr.t.Helper()
	path := filepath.Join(tr.root, name)
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600))
	old := time.Now().Add(-time.Hour)
	if err := errors.Join(err, os.Chtimes(path, old, old)); err != nil {
		tr.t.Fatal(err)
	}
	return path
}

func (tr *tree) sample(name, sample string) string {
	tr.t.Helper()
	return tr.put(name, vmcoretest.Sample(tr.t, sample))
}

// run imports everything below paths, or below the root. It returns the outcomes by their path below the root.
func (tr *tree) run(paths ...string) map[string]crashtree.Outcome {
	tr.t.Helper()
	if len(paths) == 0 {
		paths = []string{tr.root}
	}
	got := map[string]crashtree.Outcome{}
	note := func(o crashtree.Outcome) error {
		rel, err := filepath.Rel(tr.root, o.Path)
		if _, twice := got[rel]; twice {
			tr.t.Errorf("%s comes twice", rel)
		}
		got[rel] = o
		return err
	}
	err := crashtree.Walk(tr.t.Context(), paths, crashtree.Visitor{
		Dump: func(f crashtree.Found) error {
			o, err := tr.im.Import(tr.t.Context(), f)
			return errors.Join(err, note(o))
		},
		Own: func(from *os.Root, dir string) error {
			o, err := tr.im.ImportOwn(tr.t.Context(), from, dir)
			return errors.Join(err, note(o))
		},
		Data: tr.data,
		Skip: func(path string, why error) error {
			result := crashtree.Failed
			if crashtree.IsLeftOut(why) {
				result = "left out"
			}
			return note(crashtree.Outcome{Path: path, Result: result, Error: why.Error()})
		},
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	return got
}

// want runs an import and compares the results: "RESULT STATE", and a part of the reason or error.
func (tr *tree) want(want map[string][2]string, paths ...string) map[string]crashtree.Outcome {
	tr.t.Helper()
	got := tr.run(paths...)
	for path, o := range got {
		w, ok := want[path]
		if is := strings.TrimSpace(o.Result + " " + string(o.State)); !ok || is != w[0] || !strings.Contains(o.Reason+o.Error, w[1]) {
			tr.t.Errorf("%q: %s (%s%s), want %q", path, is, o.Reason, o.Error, w)
		}
	}
	for path := range want {
		if _, ok := got[path]; !ok {
			tr.t.Errorf("%q was not found; got %q", path, slices.Collect(maps.Keys(got)))
		}
	}
	return got
}

// entry is the dump of an outcome, verified.
func (tr *tree) entry(o crashtree.Outcome) storage.Entry {
	tr.t.Helper()
	e, err := tr.im.Store.Find(tr.t.Context(), o.String())
	if err != nil {
		tr.t.Fatal(err)
	}
	d, err := tr.im.Store.Open(tr.t.Context(), e.Ref)
	if err != nil {
		tr.t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	if rep, err := d.Verify(tr.t.Context(), dumpdir.VerifyOptions{}); err != nil || rep.Damaged != 0 {
		tr.t.Errorf("%s: verify: %+v, %v", o.Path, rep, err)
	}
	return e
}

// samePages compares the pages of a stored dump with those of a sample, and returns their number.
func (tr *tree) samePages(e storage.Entry, sample string) (n int) {
	tr.t.Helper()
	got, err := dumpfile.Open(filepath.Join(e.Path, dumpdir.VMCoreName))
	if err != nil {
		tr.t.Fatal(err)
	}
	defer func() { _ = got.Close() }()
	b := vmcoretest.Sample(tr.t, sample)
	want, err := dumpfile.New(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		tr.t.Fatal(err)
	}
	p, q := make([]byte, 4096), make([]byte, 4096)
	for run, err := range vmcore.HeldPages(got) {
		if err != nil {
			tr.t.Fatal(err)
		}
		for pfn := run.Start; pfn < run.End(); pfn++ {
			if err := errors.Join(got.ReadPage(p, pfn), want.ReadPage(q, pfn)); err != nil || !bytes.Equal(p, q) {
				tr.t.Fatalf("%s: pfn %d: %v", e.Path, pfn, err)
			}
			n++
		}
	}
	return n
}

// snapshot has names, contents and times of everything below dir.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(d.Name(), "index.db") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := fmt.Sprint(info.Mode(), info.Size(), info.ModTime())
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += string(b)
		}
		all[path] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

const lzoFlat, zlib, elf = "makedumpfile-1.7.6-x86_64-lzo.flat", "makedumpfile-1.7.6-x86_64-zlib.kdump", "vmcore-6.1-x86_64-tiny.elf"

// TestStockTrees imports what the kdumps of the distributions leave, twice. The second time changes nothing, and the trees never change.
func TestStockTrees(t *testing.T) {
	tr := newTree(t)
	tr.sample("10.0.0.5-2026-11-25-08:00:00/vmcore.flat", lzoFlat)
	tr.put("10.0.0.5-2026-11-25-08:00:00/vmcore-dmesg.txt", []byte(logText))
	tr.put("10.0.0.5-2026-11-25-08:00:00/kexec-dmesg.log", []byte("the capture kernel"))
	tr.sample("2026-11-25-08-00/vmcore", "makedumpfile-1.7.6-x86_64.elf")
	tr.put("2026-11-25-08-00/README.txt", []byte("vmcore status: saved successfully"))
	tr.put("2026-11-25-08-00/dmesg", []byte(logText))
	debian := tr.sample("202611250800/dump.202611250800", elf)
	tr.put("202611250800/dmesg.202611250800", []byte(logText))
	tr.put("192.0.2.7-2026-11-25-09:00:00/vmcore-dmesg-incomplete.txt", []byte(logText))
	tr.put("web3-202611250801/kexec-dmesg.log", []byte("kdump failed"))
	tr.put("linux-image-6.1.0.crash", []byte("ProblemType: KernelCrash"))
	tr.put("kexec_cmd", []byte("kexec"))
	before := snapshot(t, tr.root)
	want := func(result string) map[string][2]string {
		return map[string][2]string{
			"10.0.0.5-2026-11-25-08:00:00/vmcore.flat": {result + " complete"},
			"2026-11-25-08-00/vmcore":                  {result + " complete"},
			"202611250800/dump.202611250800":           {result + " complete"},
			"192.0.2.7-2026-11-25-09:00:00":            {result + " log-only", "there is no vmcore"},
			"web3-202611250801":                        {result + " log-only", "there is no vmcore"},
			"linux-image-6.1.0.crash":                  {"left out", "apport"},
		}
	}
	tr.im.Dry = true
	tr.want(want("would-import"))
	tr.im.Dry = false
	got := tr.want(want("imported"))
	e := tr.entry(got["10.0.0.5-2026-11-25-08:00:00/vmcore.flat"])
	m := e.Manifest
	if n := tr.samePages(e, lzoFlat); n == 0 || m.Host != "lab-guest" || m.Transport != "file" || !strings.Contains(m.PanicLine, "sysrq") || !strings.Contains(m.Sender, "flattened") {
		t.Errorf("%d pages, %+v", n, m)
	}
	if m.CrashTime == nil || m.CrashTime.Year() == time.Now().Year() && time.Since(*m.CrashTime) < time.Hour {
		t.Errorf("it crashed at %v", m.CrashTime)
	}
	if b, err := os.ReadFile(filepath.Join(e.Path, "files", "kexec-dmesg.log")); err != nil || string(b) != "the capture kernel" {
		t.Errorf("kept %q, %v", b, err)
	}
	if n := tr.samePages(tr.entry(got["202611250800/dump.202611250800"]), elf); n == 0 {
		t.Error("no pages of the ELF core")
	}
	alone := tr.entry(got["192.0.2.7-2026-11-25-09:00:00"])
	if alone.Host != "192.0.2.7" || time.Since(alone.When()) < 50*time.Minute {
		t.Errorf("%+v", alone)
	}
	if e := tr.entry(got["web3-202611250801"]); e.Host != "web3" || e.Manifest.Bytes.Log != 0 {
		t.Errorf("%+v", e)
	}
	after := snapshot(t, filepath.Dir(filepath.Dir(filepath.Dir(e.Path))))
	again := tr.want(want("present"))
	for path, o := range again {
		if o.Ref != got[path].Ref {
			t.Errorf("%s: %v the second time, %v the first", path, o.Ref, got[path].Ref)
		}
	}
	// The id is that of the contents: a copy elsewhere, of another time, is the same dump.
	copied := tr.sample("elsewhere/core", elf)
	if o := tr.run(copied)["elsewhere/core"]; o.Result != crashtree.Present || o.Ref != got["202611250800/dump.202611250800"].Ref {
		t.Errorf("a copy: %+v", o)
	}
	if err := os.RemoveAll(filepath.Dir(copied)); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(after, snapshot(t, filepath.Dir(filepath.Dir(filepath.Dir(e.Path))))) {
		t.Error("the second import changed the store")
	}
	dir, err := os.Stat(tr.root)
	if now := snapshot(t, tr.root); err != nil || before[debian] != now[debian] || len(now) != len(before) {
		t.Errorf("the tree changed: %v, %v", dir, err)
	}
}

// TestStates imports files that are not whole, or no dumps. No state is better than the truth.
func TestStates(t *testing.T) {
	tr := newTree(t)
	flip := vmcoretest.Sample(t, zlib)
	flip[len(flip)-30] ^= 0xff
	core := vmcoretest.Sample(t, elf)
	flat := vmcoretest.Sample(t, lzoFlat)
	tr.put("flipped/vmcore", flip)
	tr.put("cut/vmcore", core[:50000])
	tr.put("unmarked/vmcore.flat", flat[:len(flat)-5])
	tr.put("unfinished/vmcore-incomplete", (&vmcoretest.Kdump{NrCPUs: 1, Pages: vmcoretest.Pages(8, 4, 4096)}).Bytes())
	tr.put("suse/README.txt", []byte("If you see this text the crash dump is likely incomplete."))
	tr.put("suse/vmcore", (&vmcoretest.Kdump{NrCPUs: 1, Pages: vmcoretest.Pages(9, 4, 4096)}).Bytes())
	tr.put("zero/vmcore", make([]byte, 1<<20))
	tr.put("zero/vmcore-dmesg.txt", []byte(logText))
	tr.put("10.0.0.1-2026-11-25-08:00:00/vmcore", nil)
	tr.put("10.0.0.1-2026-11-25-08:00:00/vmcore-dmesg.txt", []byte(logText+"1"))
	tr.put("nothing/vmcore", nil)
	tr.put("text/notes.txt", []byte("no dump"))
	tr.put("text/vmcore.sha256", []byte("0123  vmcore"))
	tr.put("vmlinux/vmlinux-6.1", (&vmcoretest.Core{Type: 2, Loads: []vmcoretest.Load{{Data: make([]byte, 4096)}}}).Bytes())
	tr.im.Host = "n1"
	got := tr.want(map[string][2]string{
		"flipped/vmcore":                      {"imported partial", "pages of the file cannot be read"},
		"cut/vmcore":                          {"imported partial", "of 21 pages are not in the file"},
		"unmarked/vmcore.flat":                {"imported partial", "before its end marker"},
		"unfinished/vmcore-incomplete":        {"imported partial", "its name says"},
		"suse/vmcore":                         {"imported partial", "README.txt says"},
		"zero/vmcore":                         {"imported log-only", "not a vmcore"},
		"10.0.0.1-2026-11-25-08:00:00/vmcore": {"imported log-only", "it is empty"},
		"nothing/vmcore":                      {"failed", "it is empty"},
	})
	for path, o := range got {
		if o.Result == crashtree.Imported {
			if e := tr.entry(o); e.State() != o.State || e.Manifest.Reason != o.Reason {
				t.Errorf("%s: stored as %s", path, e.State())
			}
		}
	}
}

// TestFinishedLater imports a file that kdump has not finished, and again when it has.
func TestFinishedLater(t *testing.T) {
	tr := newTree(t)
	path := tr.sample("d/vmcore-incomplete", zlib)
	got := tr.want(map[string][2]string{"d/vmcore-incomplete": {"imported partial"}})
	if err := os.Rename(path, filepath.Join(filepath.Dir(path), "vmcore")); err != nil {
		t.Fatal(err)
	}
	again := tr.want(map[string][2]string{"d/vmcore": {"imported complete"}})
	if again["d/vmcore"].Ref != got["d/vmcore-incomplete"].Ref {
		t.Errorf("%v and %v", got, again)
	}
	tr.entry(again["d/vmcore"])
}

// pieces makes two pieces of a dump with 8 pages, as makedumpfile --split does: all have the bitmaps of the whole dump, and each has the
// descriptors and data of its pages.
func pieces(seed uint64) [2][]byte {
	var files [2][]byte
	for i := range files {
		b := (&vmcoretest.Kdump{NrCPUs: 1, Utsname: [6]string{"Linux", "web1", "6.1", "#1", "x86_64"}, Pages: vmcoretest.Pages(seed, 8, 4096)}).Bytes()
		le := binary.LittleEndian
		le.PutUint32(b[4096+12:], 1)
		le.PutUint64(b[4096+80:], uint64(4*i))
		le.PutUint64(b[4096+88:], uint64(4*i+4))
		_, descs := vmcoretest.Bitmap2(b)
		copy(b[descs:], b[descs+24*4*i:descs+24*(4*i+4)])
		files[i] = b
	}
	return files
}

// TestSplit imports the pieces of a split set as one dump, whichever of them is named, and names a piece that is missing.
func TestSplit(t *testing.T) {
	tr := newTree(t)
	a, b := pieces(1), pieces(2)
	tr.put("half/p1", a[1])
	tr.put("all/p1", a[0])
	p2 := tr.put("all/p2", a[1])
	tr.put("all/q1", b[0])
	tr.put("all/q2", b[1])
	tr.sample("all/other", zlib)
	got := tr.want(map[string][2]string{
		"half/p1": {"imported partial", "piece of the --split set with pfn 0 to 4 is missing; 4 of 8 pages are not in the file"},
		"all/p1":  {"imported complete"}, "all/q1": {"imported complete"}, "all/other": {"imported complete"},
	})
	if e := tr.entry(got["all/p1"]); e.Manifest.Pages.Present != 8 {
		t.Errorf("%+v", e.Manifest)
	}
	if again := tr.run(p2)["all/p1"]; again.Result != crashtree.Present || again.Ref != got["all/p1"].Ref {
		t.Errorf("by its second piece: %+v", again)
	}
	if e := tr.entry(got["half/p1"]); e.Manifest.Pages.Present != 4 || e.Manifest.Pages.Missing != 4 {
		t.Errorf("%+v", e.Manifest)
	}
}

// TestHeldOpen imports a file that a process keeps open for writing, as NFS-Ganesha does, long after its last change.
func TestHeldOpen(t *testing.T) {
	tr := newTree(t)
	f, err := os.OpenFile(tr.sample("d/vmcore", elf), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	tr.want(map[string][2]string{"d/vmcore": {"imported complete"}})
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// TestGrowing leaves a file that a process has open for writing and wrote lately, that changes while it is read, or that kdump has not finished.
func TestGrowing(t *testing.T) {
	tr := newTree(t)
	path := tr.sample("d/vmcore", elf)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0x7f}, 0); err != nil { // as it was
		t.Fatal(err)
	}
	tr.want(map[string][2]string{"d/vmcore": {"later", "may still be written"}})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	tr.im.Progress = func(path string, done, _ uint64) {
		if done == 0 {
			if f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err == nil {
				_, _ = f.WriteString("more")
				_ = f.Close()
			}
		}
	}
	tr.want(map[string][2]string{"d/vmcore": {"later", "changed while it was read"}})
	if list, err := tr.im.Store.List(t.Context(), storage.Filter{}); err != nil || len(list) != 0 {
		t.Errorf("%d dumps are left, %v", len(list), err)
	}
	tr.im.Progress = nil
	now := tr.sample("e/vmcore-incomplete", zlib)
	if err := os.Chtimes(now, time.Time{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	tr.want(map[string][2]string{"d/vmcore": {"imported complete"}, "e/vmcore-incomplete": {"later", "it changed"}})
}

// TestInterrupted ends imports at every step. The next one makes the dump whole, also if a receiver sealed what it found.
func TestInterrupted(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		for step := range 6 {
			tr := newTree(t)
			tr.sample("d/vmcore", elf)
			tr.put("d/vmcore-dmesg.txt", []byte(logText))
			tr.put("d/kexec-dmesg.log", []byte("kexec"))
			ctx, cancel := context.WithCancel(t.Context())
			found := crashtree.Found{Dir: filepath.Join(tr.root, "d"), Images: []string{"vmcore"}, Log: "vmcore-dmesg.txt", Others: []string{"kexec-dmesg.log"}}
			im := tr.im
			im.Store = &stopping{Store: im.Store, stop: cancel, left: step}
			im.Room = admission.NewRoom(im.Store, admission.Limits{Reserve: 1}, nil)
			o, err := im.Import(ctx, found)
			cancel()
			if err == nil && o.Result == crashtree.Imported && step < 3 {
				t.Errorf("step %d: it was not interrupted", step)
			}
			list, err := tr.im.Store.List(t.Context(), storage.Filter{})
			if err != nil || len(list) > 1 {
				t.Fatalf("%d dumps, %v", len(list), err)
			}
			if sealed && len(list) == 1 && list[0].Manifest.State == dumpdir.StateArriving {
				w, err := tr.im.Store.Resume(t.Context(), list[0].Ref, storage.ResumeOptions{})
				if err != nil {
					t.Fatal(err)
				}
				_, err = w.Seal(t.Context(), dumpdir.ReasonGone)
				if err := errors.Join(err, w.Close()); err != nil {
					t.Fatal(err)
				}
			}
			tr.run()
			e := tr.entry(tr.run()["d/vmcore"])
			if tr.samePages(e, elf) == 0 || e.State() != dumpdir.StateComplete || e.Manifest.Bytes.Log != int64(len(logText)) || e.KeptBytes == 0 {
				t.Errorf("step %d, sealed %v: %+v", step, sealed, e)
			}
		}
	}
}

// stopping is a store that ends a context when it was asked for its space some times.
type stopping struct {
	storage.Store
	stop context.CancelFunc
	left int
}

func (s *stopping) Space(ctx context.Context) (storage.Space, error) {
	if s.left--; s.left < 0 {
		s.stop()
	}
	return s.Store.Space(ctx)
}

// full is a store with little room.
type full struct {
	storage.Store
	free uint64
}

func (f *full) Space(context.Context) (storage.Space, error) {
	return storage.Space{Total: 1 << 40, Free: f.free}, nil
}

// TestNoRoom refuses dumps that do not fit, before and while it copies, and leaves nothing of them.
func TestNoRoom(t *testing.T) {
	for name, row := range map[string]struct {
		free   uint64
		limits admission.Limits
	}{
		"reserve": {1<<30 + 1000, admission.Limits{Reserve: 1 << 30}},
		"copy":    {1<<30 + 20000, admission.Limits{Reserve: 1 << 30}}, // more than the least, less than the pages
		"host":    {1 << 39, admission.Limits{HostBytes: 5000}},
		"dumps":   {1 << 39, admission.Limits{HostDumps: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t)
			if name == "dumps" {
				tr.sample("d/vmcore", zlib)
				tr.run()
			}
			have, err := tr.im.Store.List(t.Context(), storage.Filter{})
			if err != nil {
				t.Fatal(err)
			}
			tr.im.Room = admission.NewRoom(&full{tr.im.Store, row.free}, row.limits, nil)
			// 256 pages that do not compress
			path := tr.put("e/vmcore", (&vmcoretest.Core{Notes: vmcoretest.VMCOREINFO(binary.LittleEndian, "PAGESIZE=4096\n"), Loads: []vmcoretest.Load{{Data: vmcoretest.Pages(1, 256, 4096)}}}).Bytes())
			tr.im.Host = "lab-guest"
			o := tr.run(path)["e/vmcore"]
			if o.Result != crashtree.Failed || !errors.Is(o.Err, syscall.ENOSPC) && name != "host" {
				t.Errorf("%+v", o)
			}
			if list, err := tr.im.Store.List(t.Context(), storage.Filter{}); err != nil || len(list) != len(have) {
				t.Errorf("%d dumps are left, %v", len(list), err)
			}
		})
	}
}

// TestHostileTree has everything in it that a tree should not have.
func TestHostileTree(t *testing.T) {
	tr := newTree(t)
	outside := filepath.Join(t.TempDir(), "vmcore")
	if err := errors.Join(
		os.WriteFile(outside, vmcoretest.Sample(t, elf), 0o600),
		os.MkdirAll(filepath.Join(tr.root, "a\n\x1b[2J", "sub"), 0o700),
		os.Symlink("..", filepath.Join(tr.root, "a\n\x1b[2J", "loop")),
		os.Symlink(outside, filepath.Join(tr.root, "vmcore")),
		syscall.Mkfifo(filepath.Join(tr.root, "dump.fifo"), 0o600),
		syscall.Mkfifo(filepath.Join(tr.root, "fifo"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	tr.sample("a\n\x1b[2J/vmcore", elf)
	tr.put("a\n\x1b[2J/x\n\x1b\\y", []byte("text"))
	for i := range 200 {
		tr.put(fmt.Sprintf("many/%d/notes", i), []byte("no dump"))
	}
	got := tr.want(map[string][2]string{
		"vmcore":            {"left out", "not a regular file"},
		"dump.fifo":         {"left out", "not a regular file"},
		"a\n\x1b[2J/vmcore": {"imported complete"},
	})
	e := tr.entry(got["a\n\x1b[2J/vmcore"])
	if b, err := os.ReadFile(filepath.Join(e.Path, "files", "x___y")); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
	// A link that the caller names is meant.
	link := filepath.Join(tr.root, "vmcore")
	if all := tr.run(link); len(all) != 1 {
		t.Errorf("%+v", all)
	}
	if all := tr.run(filepath.Join(tr.root, "fifo"), filepath.Join(tr.root, "none")); len(all) != 2 || all["fifo"].Result == crashtree.Imported || all["none"].Result != crashtree.Failed {
		t.Errorf("%+v", all)
	}
}

// TestHosts names the hosts of dumps.
func TestHosts(t *testing.T) {
	tr := newTree(t)
	nameless := func(seed uint64, nodename string) []byte {
		return (&vmcoretest.Kdump{Utsname: [6]string{"Linux", nodename, "6.1", "#1", "x86_64"}, NrCPUs: 1, Pages: vmcoretest.Pages(seed, 4, 4096)}).Bytes()
	}
	tr.put("192.0.2.1-2026-11-25-08:00:00/vmcore", nameless(1, "web1.example"))
	tr.put("192.0.2.2-2026-11-25-08:00:00/vmcore", nameless(2, "(none)"))
	tr.put("127.0.0.1-2026-11-25-08:00:00/vmcore", nameless(3, ""))
	tr.put("db-4-202611250800/vmcore", nameless(4, ""))
	tr.put("web-2026-11-25-08-00/vmcore", nameless(5, ""))
	tr.put("x/vmcore", nameless(6, "no such/host"))
	got := tr.want(map[string][2]string{
		"192.0.2.1-2026-11-25-08:00:00/vmcore": {"imported complete"}, "192.0.2.2-2026-11-25-08:00:00/vmcore": {"imported complete"},
		"127.0.0.1-2026-11-25-08:00:00/vmcore": {"failed", "which host"}, "db-4-202611250800/vmcore": {"imported complete"},
		"web-2026-11-25-08-00/vmcore": {"imported complete"}, "x/vmcore": {"failed", "characters other than"},
	})
	hosts := map[string]string{}
	for path, o := range got {
		if o.Result == crashtree.Imported {
			hosts[path] = o.Host
		}
	}
	want := map[string]string{
		"192.0.2.1-2026-11-25-08:00:00/vmcore": "web1.example", "192.0.2.2-2026-11-25-08:00:00/vmcore": "192.0.2.2",
		"db-4-202611250800/vmcore": "db-4", "web-2026-11-25-08-00/vmcore": "web",
	}
	if !maps.Equal(hosts, want) {
		t.Errorf("got %v, want %v", hosts, want)
	}
	tr.im.Host = "given"
	if o := tr.run(filepath.Join(tr.root, "x"))["x/vmcore"]; o.Host != "given" || o.Result != crashtree.Imported {
		t.Errorf("%+v", o)
	}
}
