package kdumpclients

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/packed"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// record appends a record header and so many bytes of payload.
func record(b []byte, off, size int64, payload int) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	return append(b, make([]byte, payload)...)
}

// TestHostileStreams sends what no makedumpfile does. Each ends with an error for the client and leaves next to nothing on the disk.
func TestHostileStreams(t *testing.T) {
	_, good := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	head, body := good[:4096], good[:len(good)-16]
	for name, tc := range map[string]struct {
		b    []byte
		want error
	}{
		"offset beyond any file":    {record(slices.Clone(head), 1<<50, 100, 100), vmcore.ErrCorrupt},
		"size of 2^62":              {record(slices.Clone(head), 0, 1<<62, 100), vmcore.ErrCorrupt},
		"offset of 2^62":            {record(slices.Clone(head), 1<<62, 1<<62, 100), vmcore.ErrCorrupt},
		"negative offset":           {record(slices.Clone(head), -2, 10, 10), vmcore.ErrCorrupt},
		"size of nothing":           {record(slices.Clone(head), 0, 0, 0), vmcore.ErrCorrupt},
		"header overwritten":        {record(record(slices.Clone(body), 0, 512, 512), -1, -1, 0), nil},
		"no end":                    {body, vmcore.ErrTruncated},
		"endless after the end":     {append(slices.Clone(good), make([]byte, 2<<20)...), vmcore.ErrCorrupt},
		"a kdump header of nothing": {append([]byte("KDUMP   "), make([]byte, 8192)...), nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			tr := treeOf(t, s, "n1")
			u, err := tr.Create("/vmcore")
			if err != nil {
				t.Fatal(err)
			}
			for off := 0; off < len(tc.b) && err == nil; off += 64 << 10 {
				_, err = u.WriteAt(tc.b[off:min(off+64<<10, len(tc.b))], int64(off))
			}
			cerr := u.Close()
			if !errors.Is(cerr, tc.want) || err != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %v, %v, want %v", err, cerr, tc.want)
			}
			settle(t, s)
			e := only(t, s)
			check(t, s, e)
			if e.Manifest.State == dumpdir.StateComplete && tc.want != nil && name != "endless after the end" {
				t.Errorf("sealed as %s", e.Manifest.State)
			}
			wantStaged(t, s, "n1")
		})
	}
}

// cpuTime returns how long this process has computed: other work of the machine does not count.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestSparse puts a plausible dump of a huge machine into a few bytes: what its headers ask for is never read or allocated.
func TestSparse(t *testing.T) {
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-zlib.kdump")
	head := slices.Clone(b[:3*4096])
	const pfns = 1 << 36
	blocks := uint32(2 * (pfns / 8 / 4096))
	binary.LittleEndian.PutUint32(head[436:], blocks)
	binary.LittleEndian.PutUint64(head[4096+96:], pfns)
	s := open(t, t.TempDir())
	tr := treeOf(t, s, "n1")
	u := put(t, tr, "/vmcore", head, 4096)
	if _, err := u.WriteAt([]byte("end"), int64(blocks+16)*4096); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	before := cpuTime(t)
	settle(t, s)
	if m := only(t, s).Manifest; m.State != dumpdir.StateLogOnly || !strings.Contains(m.Reason, "1st bitmap") {
		t.Errorf("%s: %s", m.State, m.Reason)
	}
	if took := cpuTime(t) - before; took > time.Minute {
		t.Errorf("it took %v of CPU time", took)
	}
}

// TestEndlessImport sends a few bytes that speak of a machine whose pages take long to look for. Other hosts do not wait for
// the end of that.
func TestEndlessImport(t *testing.T) {
	core := vmcoretest.Core{Type: 4, Machine: 62, Loads: []vmcoretest.Load{{Paddr: 1 << 20, Data: make([]byte, 4096)}}}
	b := core.Bytes()
	for _, at := range []int{64 + 56 + 32, 64 + 56 + 40} { // p_filesz and p_memsz of the second program header
		binary.LittleEndian.PutUint64(b[at:], 1<<40)
	}
	s := open(t, t.TempDir())
	s.jobs.turn = 50 * time.Millisecond
	u := put(t, treeOf(t, s, "endless"), "/vmcore", b, len(b))
	if _, err := u.WriteAt([]byte("end"), 2<<40); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	until(t, "the import begins", func() bool {
		s.jobs.mu.Lock()
		defer s.jobs.mu.Unlock()
		return s.jobs.of["endless"]
	})
	_, flat := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	redhat(t, treeOf(t, s, "n2"), flat)
	until(t, "another host's dump is complete", func() bool {
		list, err := s.cfg.Store.List(t.Context(), storage.Filter{Host: storage.Patterns{"n2"}})
		return err == nil && len(list) == 1 && list[0].Manifest.State == dumpdir.StateComplete
	})
	if e := onlyOf(t, s, "endless"); e.Manifest.State != dumpdir.StateArriving {
		t.Errorf("it was over in no time: %+v", e.Manifest)
	}
	cancel()
	run.Wait()
}

// until waits for ok, as long as even a busy machine may take.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// TestPanics has bugs where streams are unpacked and dumps read. The receiver goes on, and so does the dump once the bug is gone.
func TestPanics(t *testing.T) {
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	u := newUnpacker(form(packed.Gzip), func(...form) (*image, error) { panic("a bug") }, func() {})
	_, _ = u.Write(pack(t, b, wraps["gzip"])) // it may be through before the bug shows
	if err := u.finish(); err == nil || !strings.Contains(err.Error(), "a bug") {
		t.Errorf("unpacking: %v", err)
	}
	s := open(t, t.TempDir())
	if err := put(t, treeOf(t, s, "n1"), "/vmcore", b, len(b)).Close(); err != nil {
		t.Fatal(err)
	}
	real := s.cfg.Store
	withRoom(s, &spaceStore{real, func() (storage.Space, error) { panic("a bug") }}, admission.Limits{Reserve: 1})
	for _, j := range s.due() {
		s.run(t.Context(), j)
	}
	if len(s.jobs.retry) != 1 || len(s.due()) != 0 {
		t.Error("it is not tried again later")
	}
	withRoom(s, real, admission.Limits{})
	clear(s.jobs.retry)
	drain(t, s)
	if m := only(t, s).Manifest; m.State != dumpdir.StateComplete {
		t.Errorf("%+v", m)
	}
}

// TestOutOfOrder shuffles the writes of streams, as SFTP may.
func TestOutOfOrder(t *testing.T) {
	for _, name := range []string{"makedumpfile-1.7.6-x86_64-lzo.flat", "makedumpfile-1.7.6-x86_64-zlib.kdump"} {
		want, plain := sample(t, name)
		for wrap, f := range wraps {
			b := pack(t, plain, f)
			s := open(t, t.TempDir())
			u, err := treeOf(t, s, "n1").Create("/vmcore")
			if err != nil {
				t.Fatal(err)
			}
			const size = 1000
			for _, i := range rand.New(rand.NewPCG(5, 5)).Perm((len(b) + size - 1) / size) {
				off := i * size
				if _, err := u.WriteAt(b[off:min(off+size, len(b))], int64(off)); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(u.Truncate(int64(len(b))), u.Close()); err != nil {
				t.Fatal(err)
			}
			drain(t, s)
			e := only(t, s)
			if n := samePages(t, check(t, s, e), want); n != count(t, want) || e.Manifest.State != dumpdir.StateComplete {
				t.Errorf("%s %s: %s, %d pages", name, wrap, e.Manifest.State, n)
			}
		}
	}
}

// TestStreamGap leaves a piece of a stream out.
func TestStreamGap(t *testing.T) {
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	u := put(t, treeOf(t, open(t, t.TempDir()), "n1"), "/vmcore", b[:8000], 1000)
	if _, err := u.WriteAt(b[9000:10000], 9000); err != nil {
		t.Fatal(err)
	}
	if _, err := u.WriteAt(b[:100], 0); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("the beginning again: %v", err)
	}
	if err := u.Close(); err == nil {
		t.Error("a stream with a gap was taken for whole")
	}
}

// TestMovedAway takes files out of directories while dumps are made of them. No dump may wait for ever, and none be made twice.
func TestMovedAway(t *testing.T) {
	s := open(t, t.TempDir())
	tr := treeOf(t, s, "n1")
	if err := errors.Join(tr.Mkdir("/a"), tr.Mkdir("/b"), tr.Mkdir("/c")); err != nil {
		t.Fatal(err)
	}
	send(t, tr, "/a/dmesg", logText)
	drain(t, s) // the log is stored, and its dump begun
	if err := tr.Rename("/a/dmesg", "/c/notes"); err != nil {
		t.Fatal(err)
	}
	if err := tr.Rmdir("/a"); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("a directory whose dump arrives was removed: %v", err)
	}
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	u := put(t, tr, "/b/vmcore", b, len(b))
	if err := tr.Rename("/b/vmcore", "/c/vmcore"); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("moved while it arrived: %v", err)
	}
	if err := errors.Join(u.Close(), tr.Rename("/b/vmcore", "/b/vmcore.flat")); err != nil {
		t.Fatal(err)
	}
	if err := (&job{svc: s, h: s.hosts["n1"], path: "/b", dir: s.hosts["n1"].state.Dirs["/b"]}).begin(); err != nil {
		t.Fatal(err)
	}
	if err := tr.Rename("/b/vmcore.flat", "/c/vmcore"); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("moved while a dump was made of it: %v", err)
	}
	drain(t, s)
	settle(t, s)
	states := map[dumpdir.State]int{}
	list, err := s.cfg.Store.List(t.Context(), storage.Filter{})
	for _, e := range list {
		states[e.Manifest.State]++
	}
	if err != nil || len(states) != 2 || states[dumpdir.StateComplete] != 1 {
		t.Errorf("%v, %v", states, err)
	}
	wantStaged(t, s, "n1")
}

// TestBoundsOfFiles sends too much of what is no dump, and too many files.
func TestBoundsOfFiles(t *testing.T) {
	s := open(t, t.TempDir())
	tr := treeOf(t, s, "n1")
	u := put(t, tr, "/notes", []byte("text, and no dump at all"), 100)
	if _, err := u.WriteAt([]byte("x"), maxSmall); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("got %v", err)
	}
	u.Abort(nil)
	s = open(t, t.TempDir())
	withRoom(s, s.cfg.Store, admission.Limits{HostBytes: 1 << 20})
	tr = treeOf(t, s, "n1")
	u = put(t, tr, "/notes", bytes.Repeat([]byte("text"), 1<<17), 1<<16)
	_, err := u.WriteAt(bytes.Repeat([]byte("text"), 1<<18), 1<<19)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if err := u.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if free, err := tr.Free("/var/crash"); err != nil || free > 1<<20 {
		t.Errorf("%d bytes free, %v", free, err)
	}
	withRoom(s, s.cfg.Store, admission.Limits{Reserve: 1 << 62})
	if free, err := tr.Free("/var/crash"); err != nil || free != 0 {
		t.Errorf("%d bytes free, %v", free, err)
	}
}

// sharedPages returns a small kdump-compressed file all of whose page descriptors have one page.
func sharedPages(pages int) []byte {
	const page = 4096
	contents := bytes.Repeat([]byte("page"), pages*page/4)
	whole := (&vmcoretest.Kdump{Utsname: [6]string{"Linux", "n", "6.1", "#1", "x86_64"}, Pages: contents}).Bytes()
	data := uint64(len(whole) - len(contents))
	at := bytes.Index(whole, binary.LittleEndian.AppendUint64(nil, data))
	for i := range pages {
		binary.LittleEndian.PutUint64(whole[at+24*i:], data)
	}
	return whole[:data+page]
}

// TestGrowthCounts sends many small dumps that grow when they are copied. Together they stay within the limit of the host and the slack
// of one dump. The others wait, with their bytes.
func TestGrowthCounts(t *testing.T) {
	const limit, sent = 24 << 20, 6
	s := open(t, t.TempDir())
	s.cfg.Codec = kdumpfile.Zlib
	withRoom(s, s.cfg.Store, admission.Limits{HostBytes: limit})
	b := sharedPages(8192)
	for i := range sent {
		p := fmt.Sprintf("/%d", i)
		tr := treeOf(t, s, "n1")
		if err := errors.Join(tr.MkdirAll(p), put(t, tr, p+"/vmcore", b, len(b)).Close()); err != nil {
			t.Fatal(err)
		}
	}
	age(s)
	waiting := 0
	for _, j := range s.due() {
		err := j.workSafely(t.Context())
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Error(err)
		}
		if err != nil {
			waiting++
		}
	}
	usage, err := s.cfg.Store.Usage(t.Context(), "n1")
	if most := uint64(limit + dumpcopy.Beyond + 2*len(b)); err != nil || usage.Bytes > most {
		t.Errorf("%d bytes are stored, want at most %d; %v", usage.Bytes, most, err)
	}
	if waiting == 0 || waiting == sent || s.cfg.Room.Account("n1").Staged() < uint64(waiting*len(b)) {
		t.Errorf("%d dumps wait, %d bytes are staged", waiting, s.cfg.Room.Account("n1").Staged())
	}
}

// TestSharedPages sends a small dump all of whose page descriptors have one page, and one whose PT_LOADs have the same bytes: what is
// stored of them is little more than what was sent.
func TestSharedPages(t *testing.T) {
	loads := []vmcoretest.Load{{Paddr: 0, Data: bytes.Repeat([]byte("page"), 1<<18)}}
	for i := range 31 {
		loads = append(loads, vmcoretest.Load{Paddr: uint64(i+1) << 20, Memsz: 1 << 20})
	}
	core := (&vmcoretest.Core{Machine: 62, Loads: loads}).Bytes()
	for i := range 31 { // offset and p_filesz of the first
		copy(core[64+56*(i+2)+8:][:8], core[64+56+8:][:8])
		copy(core[64+56*(i+2)+32:][:8], core[64+56+32:][:8])
	}
	for name, b := range map[string][]byte{"kdump": sharedPages(8192), "elf": core} {
		s := open(t, t.TempDir())
		s.cfg.Codec = kdumpfile.Zlib
		if err := put(t, treeOf(t, s, "n1"), "/vmcore", b, len(b)).Close(); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
		m := only(t, s).Manifest
		if m.Bytes.VMCore > int64(len(b))+dumpcopy.Beyond+1<<20 {
			t.Errorf("%s: %d bytes are stored of %d", name, m.Bytes.VMCore, len(b))
		}
		if name == "kdump" && (m.State != dumpdir.StatePartial || !strings.Contains(m.Reason, "the same bytes") || m.Pages.Present == 0) {
			t.Errorf("%s: %+v", name, m)
		}
	}
}
