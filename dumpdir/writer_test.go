package dumpdir_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/dumpdir/dumpdirtest"
	"github.com/corehaul/corehaul/mem"
)

const dir = "/dumps/node1/d"

// start makes a dump of m with log and plan.
func start(t *testing.T, fsys dumpdir.FS, dir string, m *dumpdirtest.Machine) *dumpdir.Writer {
	t.Helper()
	w, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	if err := w.StoreLog(bytes.NewReader(m.Log)); err != nil {
		t.Fatal(err)
	}
	if err := m.SetPlan(w); err != nil {
		t.Fatal(err)
	}
	return w
}

func putAll(t *testing.T, w *dumpdir.Writer, chunks []dumpdir.Chunk) {
	t.Helper()
	for i := range chunks {
		if err := w.PutChunk(&chunks[i]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// complete makes a complete dump of m.
func complete(t *testing.T, fsys dumpdir.FS, dir string, m *dumpdirtest.Machine) dumpdir.Result {
	t.Helper()
	w := start(t, fsys, dir, m)
	putAll(t, w, m.Chunks)
	res, err := w.Seal(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return res
}

func openDump(t *testing.T, fsys dumpdir.FS, dir string) *dumpdir.Dump {
	t.Helper()
	d, err := dumpdir.Open(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func verify(t *testing.T, fsys dumpdir.FS, dir string) *dumpdir.Report {
	t.Helper()
	d, err := dumpdir.Open(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }() // at once: some tests verify thousands of times
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func wantClean(t *testing.T, rep *dumpdir.Report) {
	t.Helper()
	if !rep.OK() {
		t.Fatalf("%d findings, the first: %+v", rep.Damaged, rep.Findings[0])
	}
}

func TestComplete(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "node1", "d")
	m := dumpdirtest.NewMachine(1, 700, 16)
	res := complete(t, dumpdir.OS{}, dir, m)
	if res.State != dumpdir.StateComplete || res.Progress.Missing() != 0 || res.Progress.Present != 700 {
		t.Errorf("result %+v", res)
	}
	names, err := dumpdir.OS{}.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"SHA256SUMS", "chunks", "manifest.json", "vmcore", "vmcore-dmesg.txt"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	checkSums(t, dir)
	rep := verify(t, dumpdir.OS{}, dir)
	wantClean(t, rep)
	if rep.SHA256 != res.SHA256 {
		t.Errorf("verify has SHA-256 %s, the seal %s", rep.SHA256, res.SHA256)
	}
	d := openDump(t, dumpdir.OS{}, dir)
	f, err := dumpdirtest.OpenVMCore(dumpdir.OS{}, d)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := m.CheckPages(f, []chunk.SeqRange{{Last: m.End.Chunks - 1}}); err != nil || n != 700 {
		t.Errorf("%d pages right: %v", n, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// checkSums does what sha256sum -c does.
func checkSums(t *testing.T, dir string) {
	t.Helper()
	sums, err := os.ReadFile(filepath.Join(dir, dumpdir.SumsName))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if have := sha256.Sum256(b); hex.EncodeToString(have[:]) != sum {
			t.Errorf("%s: SHA256SUMS is wrong", name)
		}
	}
}

func TestManifestOfComplete(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	m := dumpdirtest.NewMachine(2, 60, 16)
	complete(t, fsys, dir, m)
	got := openDump(t, fsys, dir).Manifest()
	if got.State != dumpdir.StateComplete || got.EndTime == nil || got.SHA256 == "" || got.Plan == nil {
		t.Fatalf("manifest %+v", got)
	}
	if !got.CrashTime.Equal(m.Meta.CrashTime) || got.Release != m.Meta.Release || got.PanicLine != m.Meta.PanicLine {
		t.Errorf("manifest %+v", got)
	}
	var stored uint64
	for _, n := range got.Encodings {
		stored += n
	}
	if stored != 60 || got.Pages.Present != 60 || got.Bytes.Raw != 60*4096 || got.Bytes.Log != int64(len(m.Log)) {
		t.Errorf("counts %+v %+v %v", got.Pages, got.Bytes, got.Encodings)
	}
}

func TestPartialThenReopened(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	m := dumpdirtest.NewMachine(3, 300, 16)
	w := start(t, fsys, dir, m)
	putAll(t, w, m.Chunks[:7])
	if _, err := w.Seal(t.Context(), ""); !errors.Is(err, dumpdir.ErrMissingPages) {
		t.Fatalf("seal without a reason: %v", err)
	}
	res, err := w.Seal(t.Context(), "deadline\x1b[31m passed")
	if err != nil || res.State != dumpdir.StatePartial || res.Reason != "deadline?[31m passed" {
		t.Fatalf("seal: %+v, %v", res, err)
	}
	if err := w.PutChunk(&m.Chunks[7]); !errors.Is(err, dumpdir.ErrSealed) {
		t.Errorf("put after the seal: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantClean(t, verify(t, fsys, dir))
	checkPages(t, fsys, m, []chunk.SeqRange{{Last: 6}}, 100) // the first tier

	w, err = dumpdir.Resume(fsys, dir, dumpdir.Options{Reopen: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]chunk.SeqRange{{Last: 6}}, w.Have()); diff != "" {
		t.Errorf("have (-want +got):\n%s", diff)
	}
	wantClean(t, verify(t, fsys, dir))
	putAll(t, w, m.Chunks[7:])
	res, err = w.Seal(t.Context(), "")
	if err != nil || res.State != dumpdir.StateComplete {
		t.Fatalf("second seal: %+v, %v", res, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantClean(t, verify(t, fsys, dir))
	other := dumpdirtest.NewFS()
	if undisturbed := complete(t, other, dir, m); undisturbed.SHA256 != res.SHA256 {
		t.Error("the reopened dump differs from an undisturbed one")
	}
}

func checkPages(t *testing.T, fsys dumpdir.FS, m *dumpdirtest.Machine, have []chunk.SeqRange, pages int) {
	t.Helper()
	f, err := dumpdirtest.OpenVMCore(fsys, openDump(t, fsys, dir))
	if err != nil {
		t.Fatal(err)
	}
	n, err := m.CheckPages(f, have)
	if err != nil || n != pages {
		t.Errorf("%d pages right, want %d: %v", n, pages, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpensWhileArriving(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	m := dumpdirtest.NewMachine(4, 200, 16)
	w := start(t, fsys, dir, m)
	checkPages(t, fsys, m, nil, 0)
	putAll(t, w, m.Chunks[:3])
	checkPages(t, fsys, m, []chunk.SeqRange{{Last: 2}}, 48)
	rep := verify(t, fsys, dir)
	wantClean(t, rep)
	if rep.State != dumpdir.StateArriving || rep.Progress.Present != 48 {
		t.Errorf("report %+v", rep)
	}
}

func TestLogOnly(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	m := dumpdirtest.NewMachine(5, 10, 16)
	w, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.StoreLog(bytes.NewReader(m.Log)); err != nil {
		t.Fatal(err)
	}
	res, err := w.Seal(t.Context(), "log only asked for")
	if err != nil || res.State != dumpdir.StateLogOnly || res.VMCore != "" {
		t.Fatalf("seal: %+v, %v", res, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantClean(t, verify(t, fsys, dir))
	log, err := openDump(t, fsys, dir).OpenLog()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(log); err != nil || !bytes.Equal(b, m.Log) {
		t.Errorf("log %q, %v", b, err)
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	m := dumpdirtest.NewMachine(6, 200, 16)
	w := start(t, fsys, dir, m)
	putAll(t, w, m.Chunks[:2])
	change := func(i int, f func(*dumpdir.Chunk)) *dumpdir.Chunk {
		c := m.Chunks[i]
		c.Extents = append([]chunk.Extent(nil), c.Extents...)
		c.Pages = append([]dumpdir.PageRecord(nil), c.Pages...)
		f(&c)
		return &c
	}
	for _, tc := range []struct {
		name  string
		chunk *dumpdir.Chunk
		want  error
	}{
		{"committed chunk", &m.Chunks[1], dumpdir.ErrHaveChunk},
		{"number beyond the plan", change(2, func(c *dumpdir.Chunk) { c.Seq = m.End.Chunks }), dumpdir.ErrOutsidePlan},
		{"pages of another chunk", change(1, func(c *dumpdir.Chunk) { c.Seq = 9 }), dumpdir.ErrHavePage},
		{"last page not planned", change(2, func(c *dumpdir.Chunk) { c.Extents[len(c.Extents)-1].Start = m.Facts.MaxPFN - 1 }), dumpdir.ErrOutsidePlan},
		{"page beyond max_mapnr", change(2, func(c *dumpdir.Chunk) { c.Extents[len(c.Extents)-1].Start = m.Facts.MaxPFN }), dumpdir.ErrBadChunk},
		{"count that wraps", change(2, func(c *dumpdir.Chunk) { c.Extents[0].Count = ^uint64(0) }), dumpdir.ErrBadChunk},
		{"no extents", change(2, func(c *dumpdir.Chunk) { c.Extents = nil }), dumpdir.ErrBadChunk},
		{"fewer records than pages", change(2, func(c *dumpdir.Chunk) { c.Pages = c.Pages[1:] }), dumpdir.ErrBadChunk},
		{"record of no bytes", change(2, func(c *dumpdir.Chunk) { c.Pages[0].Size = 0 }), dumpdir.ErrBadChunk},
		{"record longer than a page", change(2, func(c *dumpdir.Chunk) { c.Pages[0].Size = 4097 }), dumpdir.ErrBadChunk},
		{"unknown compressor", change(2, func(c *dumpdir.Chunk) { c.Pages[0].Flags = 0x40 }), dumpdir.ErrBadChunk},
		{"data too short", change(2, func(c *dumpdir.Chunk) { c.Data = c.Data[1:] }), dumpdir.ErrBadChunk},
	} {
		if err := w.PutChunk(tc.chunk); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
	if _, err := w.StartPlan(m.Facts); !errors.Is(err, dumpdir.ErrHavePlan) {
		t.Errorf("second plan: %v", err)
	}
	if _, err := dumpdir.Resume(fsys, dir, dumpdir.Options{}); !errors.Is(err, dumpdir.ErrLocked) {
		t.Errorf("second writer: %v", err)
	}
	if _, err := dumpdir.Create(dumpdir.OS{}, t.TempDir(), dumpdir.Meta{ID: "../../etc", Host: "h"}, dumpdir.Options{}); err == nil {
		t.Error("bad id was taken")
	}
	putAll(t, w, m.Chunks[2:])
	if _, err := w.Seal(t.Context(), ""); err != nil {
		t.Fatalf("refusals did harm: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{}); !errors.Is(err, dumpdir.ErrExist) {
		t.Errorf("create over a dump: %v", err)
	}
	wantClean(t, verify(t, fsys, dir))
}

func TestBadPlans(t *testing.T) {
	m := dumpdirtest.NewMachine(7, 100, 16)
	for _, tc := range []struct {
		name string
		plan func(w *dumpdir.Writer) error
	}{
		{"page size", func(w *dumpdir.Writer) error {
			f := m.Facts
			f.PageSize = 4095
			_, err := w.StartPlan(f)
			return err
		}},
		{"max_mapnr too large", func(w *dumpdir.Writer) error {
			f := m.Facts
			f.MaxPFN = dumpdir.MaxPFN + 1
			_, err := w.StartPlan(f)
			return err
		}},
		{"RAM out of order", func(w *dumpdir.Writer) error {
			f := m.Facts
			f.RAM = []mem.Range{f.RAM[1], f.RAM[0]}
			_, err := w.StartPlan(f)
			return err
		}},
		{"runs out of order", func(w *dumpdir.Writer) error {
			return addRuns(w, m, mem.Extent{Start: 9, Count: 3}, mem.Extent{Start: 11, Count: 1})
		}},
		{"run beyond max_mapnr", func(w *dumpdir.Writer) error { return addRuns(w, m, mem.Extent{Start: m.Facts.MaxPFN, Count: 1}) }},
		{"run that wraps", func(w *dumpdir.Writer) error { return addRuns(w, m, mem.Extent{Start: 5, Count: ^uint64(0)}) }},
		{"run outside RAM", func(w *dumpdir.Writer) error { return addRuns(w, m, mem.Extent{Start: 0x9e, Count: 2}) }},
		{"wrong count", func(w *dumpdir.Writer) error { return addRuns(w, m, mem.Extent{Start: 1, Count: 2}) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fsys := dumpdirtest.NewFS()
			w, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := tc.plan(w); !errors.Is(err, dumpdir.ErrBadPlan) {
				t.Errorf("got %v, want ErrBadPlan", err)
			}
			if err := m.SetPlan(w); err != nil {
				t.Errorf("good plan afterwards: %v", err)
			}
		})
	}
}

func addRuns(w *dumpdir.Writer, m *dumpdirtest.Machine, runs ...mem.Extent) error {
	b, err := w.StartPlan(m.Facts)
	if err != nil {
		return err
	}
	for _, e := range runs {
		if err := b.Add(e); err != nil {
			return err
		}
	}
	return b.Finish(dumpdir.PlanEnd{Pages: 100, Chunks: 1})
}

func TestTakeover(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	m := dumpdirtest.NewMachine(8, 200, 16)
	old := start(t, fsys, dir, m)
	putAll(t, old, m.Chunks[:2])
	if err := old.PutChunk(&m.Chunks[2]); err != nil {
		t.Fatal(err)
	}
	w, err := old.Takeover()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]chunk.SeqRange{{Last: 2}}, w.Have()); diff != "" {
		t.Errorf("have (-want +got):\n%s", diff)
	}
	before := fsys.String()
	_, commitErr := old.Commit()
	_, sealErr := old.Seal(t.Context(), "x")
	for i, err := range []error{
		old.PutChunk(&m.Chunks[3]), commitErr, sealErr, old.StoreLog(strings.NewReader("x")),
		old.UpdateMeta(func(*dumpdir.Meta) {}),
	} {
		if !errors.Is(err, dumpdir.ErrRevoked) {
			t.Errorf("call %d on the old writer: %v", i, err)
		}
	}
	if err := old.Close(); err != nil {
		t.Errorf("close of the old writer: %v", err)
	}
	if after := fsys.String(); after != before {
		t.Errorf("the old writer changed files:\n%s\n%s", before, after)
	}
	putAll(t, w, m.Chunks[3:])
	if _, err := w.Seal(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
}

// blockedReader is a connection that is dead and nobody knows.
type blockedReader struct{ ready, release chan struct{} }

func (r *blockedReader) Read([]byte) (int, error) {
	close(r.ready)
	<-r.release
	return 0, io.ErrUnexpectedEOF
}

func TestTakeoverDoesNotWaitForDeadConnection(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	m := dumpdirtest.NewMachine(9, 50, 16)
	old, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &blockedReader{make(chan struct{}), make(chan struct{})}
	done := make(chan error)
	go func() { done <- old.StoreLog(r) }()
	<-r.ready
	w, err := old.Takeover()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.StoreLog(bytes.NewReader(m.Log)); err != nil {
		t.Fatal(err)
	}
	close(r.release)
	if err := <-done; err == nil {
		t.Error("the old writer stored a log")
	}
	if b, _ := fsys.Bytes(dir + "/" + dumpdir.LogName); !bytes.Equal(b, m.Log) {
		t.Errorf("log is %q", b)
	}
}

func TestTakeoverOfFailedWriter(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	m := dumpdirtest.NewMachine(10, 200, 16)
	old := start(t, fsys, dir, m)
	putAll(t, old, m.Chunks[:2])
	boom := errors.New("boom")
	fsys.SetFault(func(_ int, op dumpdirtest.Op, name string) error {
		if op == dumpdirtest.OpSync && name == dumpdir.IncompleteName {
			return boom
		}
		return nil
	})
	if err := old.PutChunk(&m.Chunks[2]); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Commit(); !errors.Is(err, boom) {
		t.Fatalf("commit: %v", err)
	}
	fsys.SetFault(nil)
	if _, err := old.Commit(); !errors.Is(err, boom) {
		t.Errorf("a failed fsync was forgotten: %v", err)
	}
	if err := old.PutChunk(&m.Chunks[3]); !errors.Is(err, boom) {
		t.Errorf("a failed fsync was forgotten: %v", err)
	}
	w, err := old.Takeover()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]chunk.SeqRange{{Last: 1}}, w.Have()); diff != "" {
		t.Errorf("have (-want +got):\n%s", diff)
	}
	putAll(t, w, m.Chunks[2:])
	if _, err := w.Seal(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	wantClean(t, verify(t, fsys, dir))
}

func TestSealCancelled(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	m := dumpdirtest.NewMachine(11, 100, 16)
	w := start(t, fsys, dir, m)
	putAll(t, w, m.Chunks[:2])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Seal(ctx, "stalled"); !errors.Is(err, context.Canceled) {
		t.Fatalf("seal: %v", err)
	}
	w, err := w.Takeover()
	if err != nil {
		t.Fatal(err)
	}
	putAll(t, w, m.Chunks[2:])
	if res, err := w.Seal(t.Context(), ""); err != nil || res.State != dumpdir.StateComplete {
		t.Fatalf("seal: %+v, %v", res, err)
	}
	wantClean(t, verify(t, fsys, dir))
}

func TestLockBetweenWritersOfTheOS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	m := dumpdirtest.NewMachine(12, 20, 16)
	w := start(t, dumpdir.OS{}, dir, m)
	if _, err := dumpdir.Resume(dumpdir.OS{}, dir, dumpdir.Options{}); !errors.Is(err, dumpdir.ErrLocked) {
		t.Fatalf("got %v, want ErrLocked", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := dumpdir.Resume(dumpdir.OS{}, dir, dumpdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := dumpdir.Resume(dumpdir.OS{}, dir+"x", dumpdir.Options{}); !errors.Is(err, dumpdir.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

// TestLockEndsWithItsOwner: a descriptor that a program has got which is just being started does not keep the lock.
func TestLockEndsWithItsOwner(t *testing.T) {
	dir := t.TempDir()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := unix.Dup(int(d.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(inherited) }()
	lock, err := dumpdir.LockDir(d, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (dumpdir.OS{}).Lock(dir); !errors.Is(err, dumpdir.ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := (dumpdir.OS{}).Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestChangedAndHostileMeta(t *testing.T) {
	fsys := dumpdirtest.NewFS()
	m := dumpdirtest.NewMachine(13, 20, 16)
	m.Meta.Nodename = "evil\x1b]0;\u202e" + strings.Repeat("n", 5000)
	m.Meta.CrashTime = time.Unix(1<<55, 0)
	var last *dumpdir.Manifest
	w, err := dumpdir.Create(fsys, dir, m.Meta, dumpdir.Options{Changed: func(m *dumpdir.Manifest) { last = m }})
	if err != nil {
		t.Fatal(err)
	}
	if last == nil || len(last.Nodename) > 512 || strings.ContainsAny(last.Nodename, "\x1b\u202e") || last.CrashTime != nil {
		t.Errorf("manifest %+v", last)
	}
	if err := w.UpdateMeta(func(m *dumpdir.Meta) { m.PanicLine, m.ID = "BUG: \x00", "other" }); err != nil {
		t.Fatal(err)
	}
	if last.PanicLine != "BUG: ?" || last.ID != m.Meta.ID {
		t.Errorf("manifest %+v", last)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
