package kdumpclients

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// withRoom gives a service another store, and other limits of it.
func withRoom(s *Service, store storage.Store, limits admission.Limits) {
	s.cfg.Store, s.cfg.Room = store, admission.NewRoom(store, limits, s.cfg.Log)
	for name, h := range s.hosts {
		h.account = s.cfg.Room.Account(name)
	}
}

// TestStagedIsWhatIsThere sends files again, and the same bytes again, and wants no more counted than lies on the disk: what is
// counted for one host is taken from the room of all.
func TestStagedIsWhatIsThere(t *testing.T) {
	const size, most = 1 << 20, 3 << 20
	text, elf := bytes.Repeat([]byte("text"), size/4), bytes.Repeat([]byte("\x7fELF"), size/4)
	_, flat := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	for name, again := range map[string]func(tr Tree, u Upload) Upload{
		"a file that was whole": func(tr Tree, _ Upload) Upload {
			u := put(t, tr, "/notes", text, size)
			_ = u.Close() // counted below
			return u
		},
		"a try that broke off": func(tr Tree, _ Upload) Upload {
			u := put(t, tr, "/vmcore", elf, size)
			u.Abort(nil)
			return u
		},
		"a stream that came in the wrong order": func(tr Tree, _ Upload) Upload {
			u := put(t, tr, "/vmcore", flat[:8<<10], 8<<10)
			if _, err := u.WriteAt(elf, 16<<10); err != nil {
				t.Fatal(err)
			}
			u.Abort(nil)
			return u
		},
		"the same bytes of a file": func(tr Tree, u Upload) Upload { return over(t, tr, u, "/notes", text) },
		"the same bytes of a dump": func(tr Tree, u Upload) Upload { return over(t, tr, u, "/vmcore", elf) },
	} {
		s := open(t, t.TempDir())
		tr := treeOf(t, s, "n1")
		var u Upload
		for range 10 {
			u = again(tr, u)
		}
		if got := s.cfg.Room.Account("n1").Staged(); got > most {
			t.Errorf("%s: %d bytes are counted", name, got)
		}
		u.Abort(nil)
	}
}

// over writes b to the beginning of a file.
func over(t *testing.T, tr Tree, u Upload, p string, b []byte) Upload {
	t.Helper()
	if u == nil {
		return put(t, tr, p, b, len(b))
	}
	if _, err := u.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return u
}

// TestKeptFilesCount sends a large file beside a dump, and wants it to count as the host's once the dump is sealed and the client's directory gone.
func TestKeptFilesCount(t *testing.T) {
	const size = 2 << 20
	s := open(t, t.TempDir())
	const most = 64 << 20
	withRoom(s, s.cfg.Store, admission.Limits{HostBytes: most})
	tr := treeOf(t, s, "n1")
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	redhat(t, tr, b)
	if err := put(t, tr, crash+"/opalcore", bytes.Repeat([]byte{1}, size), size).Close(); err != nil {
		t.Fatal(err)
	}
	settle(t, s)
	e := only(t, s)
	free, err := tr.Free("/")
	if limit := most - e.KeptBytes; err != nil || free > limit || e.KeptBytes < size {
		t.Errorf("%d bytes are free, want %d; %d bytes are kept; %v", free, limit, e.KeptBytes, err)
	}
}

// TestHolesHaveNoRoom makes a file long and then writes into it: what is written counts then.
func TestHolesHaveNoRoom(t *testing.T) {
	const limit = 2 << 20
	core := (&vmcoretest.Core{Loads: []vmcoretest.Load{{Paddr: 1 << 20, Data: make([]byte, 64<<10), Memsz: 1 << 30}}}).Bytes()
	for name, head := range map[string][]byte{"/notes": []byte("text, and no dump at all"), "/vmcore": core} {
		for _, before := range []bool{false, true} {
			s := open(t, t.TempDir())
			withRoom(s, s.cfg.Store, admission.Limits{HostBytes: limit})
			tr := treeOf(t, s, "n1")
			u, err := tr.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			longer := func() {
				if err := u.Truncate(64 << 20); err != nil {
					t.Fatal(err)
				}
			}
			if before {
				longer()
			}
			if _, err := u.WriteAt(head, 0); err != nil {
				t.Fatal(err)
			}
			if !before {
				longer()
			}
			written, err := 0, error(nil)
			for ; err == nil && written < 8*limit; written += 64 << 10 {
				_, err = u.WriteAt(bytes.Repeat([]byte("data"), 16<<10), int64(1<<20+written))
			}
			if !errors.Is(err, syscall.ENOSPC) || written > limit {
				t.Errorf("%s: %d bytes were written under a limit of %d: %v", name, written, limit, err)
			}
			u.Abort(nil)
		}
	}
}

// TestHolesAreNotKept sends files that are almost nothing but a hole beside a dump. Copies of them would fill the disk with zeros.
func TestHolesAreNotKept(t *testing.T) {
	vmlinux := (&vmcoretest.Core{Type: 2, Loads: []vmcoretest.Load{{Data: bytes.Repeat([]byte("text"), 1<<12)}}}).Bytes()
	for name, far := range map[string]func(Upload) error{
		"a length": func(u Upload) error { return u.Truncate(1 << 40) },
		"a byte":   func(u Upload) error { _, err := u.WriteAt([]byte{1}, 1<<40); return err },
	} {
		s := open(t, t.TempDir())
		tr := treeOf(t, s, "n1")
		send(t, tr, "/dmesg", logText)
		u := put(t, tr, "/vmlinux", vmlinux, len(vmlinux))
		if err := errors.Join(far(u), u.Close()); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
		if e := only(t, s); e.KeptBytes > 0 {
			t.Errorf("%s: %d bytes are kept", name, e.KeptBytes)
		}
		wantStaged(t, s, "n1")
	}
}

// TestAccountIsShared has other parts of the receiver charge the host: its files have what is left, and the other way round.
func TestAccountIsShared(t *testing.T) {
	const limit = 2 << 20
	s := open(t, t.TempDir())
	withRoom(s, s.cfg.Store, admission.Limits{HostBytes: limit})
	account, tr := s.cfg.Room.Account("n1"), treeOf(t, s, "n1")
	u := put(t, tr, "/notes", bytes.Repeat([]byte("text"), limit/8), limit/2)
	if err := account.Charge(t.Context(), limit/2+1); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("pages beside a file: %v", err)
	}
	if err := account.NewEarly().Charge(t.Context(), limit/2); err != nil {
		t.Errorf("a log beside a file: %v", err)
	}
	if _, err := u.WriteAt([]byte("text"), limit/2); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a file beside a log: %v", err)
	}
	u.Abort(nil)
}

// TestHostDumpsAreLimited has a client send one dump more than its host may have: it is made when there is one less.
func TestHostDumpsAreLimited(t *testing.T) {
	s := open(t, t.TempDir())
	withRoom(s, s.cfg.Store, admission.Limits{HostDumps: 1})
	tr := treeOf(t, s, "n1")
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	redhat(t, tr, b)
	settle(t, s)
	first := only(t, s)
	redhat(t, tr, b)
	age(s)
	for _, j := range s.due() {
		if err := j.work(t.Context()); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "max_host_dumps") {
			t.Errorf("a dump too many: %v", err)
		}
		s.jobs.release(j.dir, false)
	}
	if e := only(t, s); e.ID != first.ID {
		t.Error("another dump is in its place")
	}
	if err := s.cfg.Store.Remove(t.Context(), first.Ref, storage.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	withRoom(s, s.cfg.Store, admission.Limits{HostDumps: 1}) // listed anew
	settle(t, s)
	if e := only(t, s); e.ID == first.ID || e.State() != dumpdir.StateComplete {
		t.Errorf("%s is %s", e.ID, e.State())
	}
}

// TestLogsMayUseTheReserve has a disk at its reserve, and a host at its limit: a log is stored, once a host's part of the reserve allows
// it. Nothing else is.
func TestLogsMayUseTheReserve(t *testing.T) {
	const reserve = 4 << 20 // of which a host gets a quarter
	for name, limits := range map[string]admission.Limits{"reserve": {Reserve: reserve}, "limit": {HostBytes: 1}} {
		s := open(t, t.TempDir())
		withRoom(s, &spaceStore{s.cfg.Store, func() (storage.Space, error) { return storage.Space{Total: 1 << 40, Free: reserve - 1}, nil }}, limits)
		tr := treeOf(t, s, "n1")
		long := logText + strings.Repeat("x", reserve*5/32) // more than half of the part
		send(t, tr, "/d/dmesg", long)
		u, err := tr.Create("/d/vmcore")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.WriteAt(make([]byte, 4096), 0); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: a dump: %v", name, err)
		}
		u.Abort(nil)
		settle(t, s)
		if m := only(t, s).Manifest; m.State != dumpdir.StateLogOnly || m.Bytes.Log != int64(len(long)) {
			t.Errorf("%s: %s with a log of %d bytes", name, m.State, m.Bytes.Log)
		}
		if name == "limit" {
			continue
		}
		u, err = tr.Create("/e/dmesg")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.WriteAt(make([]byte, reserve/4), 0); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a log beyond the part of a host: %v", err)
		}
		u.Abort(nil)
	}
}
