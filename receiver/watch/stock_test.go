package watch_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

const logOf = "[    0.0] Linux version 6.1.0\n[    9.0] Kernel panic - not syncing: sysrq triggered crash\n"

// TestStock takes in what kdump leaves, in the layouts of the distributions, once: also after a restart, and after somebody has removed it.
func TestStock(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put("10.0.0.5-2026-11-25-08:00:00/vmcore.flat", vmcoretest.Sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat"), time.Hour)
	r.put("10.0.0.5-2026-11-25-08:00:00/vmcore-dmesg.txt", []byte(logOf), time.Hour)
	r.put("202611250800/dump.202611250800", vmcoretest.Sample(t, "vmcore-6.1-x86_64-tiny.elf"), time.Hour)
	r.put("2026-11-25-08-00/vmcore", vmcoretest.Sample(t, "makedumpfile-1.7.6-x86_64.elf"), time.Hour)
	r.put("notes/README", []byte("no dump"), time.Hour)
	r.look()
	list := r.list()
	if len(list) != 3 {
		t.Fatalf("%d dumps\n%s", len(list), r.log.String())
	}
	for i := range list {
		if list[i].State() != dumpdir.StateComplete || list[i].Manifest.Transport != "file" {
			t.Errorf("%s is %s", list[i].Ref, list[i].State())
		}
		r.verify(list[i].Ref)
		if err := r.store.Remove(t.Context(), list[i].Ref, storage.RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	r.later(2 * time.Hour)
	r.start()
	r.put("copied/vmcore", vmcoretest.Sample(t, "makedumpfile-1.7.6-x86_64-zlib.kdump"), time.Hour) // the first of them in another form
	r.later(2 * time.Hour)
	r.none()
}

// TestStockGrowing leaves files alone that kdump is still writing. What it has abandoned becomes a partial dump after the grace.
func TestStockGrowing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	whole := vmcoretest.Sample(t, "vmcore-6.1-x86_64-tiny.elf")
	const dir = "10.0.0.5-2026-11-25-08:00:00/"
	r.put(dir+"vmcore-dmesg.txt", []byte(logOf), 6*time.Minute)
	r.look()
	r.none() // the memory may follow
	path := r.put(dir+"vmcore-incomplete", whole[:40000], 6*time.Minute)
	r.later(time.Minute)
	r.none()
	r.put(dir+"vmcore-incomplete", whole[:50000], time.Second)
	r.later(time.Minute)
	r.none()
	if st := r.w.Status()[0]; st.Arriving != 1 || st.Failing != 0 {
		t.Errorf("status %+v\n%s", st, r.log.String())
	}
	old := time.Now().Add(-time.Hour)
	if err := errors.Join(os.Chtimes(path, old, old), os.Chtimes(filepath.Join(r.dir, dir, "vmcore-dmesg.txt"), old, old)); err != nil {
		t.Fatal(err)
	}
	r.later(time.Minute)
	e := r.one(dumpdir.StatePartial)
	r.verify(e.Ref)
}

// TestStockWriter leaves a file alone that a process has open for writing, until it has not changed for five minutes: servers of exports keep files
// open. It takes one that was closed at once.
func TestStockWriter(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		ago          time.Duration
		closed, want bool
	}{{time.Second, false, false}, {4 * time.Minute, false, false}, {6 * time.Minute, false, true}, {time.Second, true, true}} {
		r := newRig(t)
		path := r.put("202611250800/dump.202611250800", vmcoretest.Sample(t, "vmcore-6.1-x86_64-tiny.elf"), tc.ago)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if tc.closed {
			err = f.Close()
		} else {
			t.Cleanup(func() { _ = f.Close() })
		}
		r.look()
		if n := len(r.list()); err != nil || n == 1 != tc.want {
			t.Errorf("%+v: %d dumps, %v\n%s", tc, n, err, r.log.String())
		}
	}
}

// TestStockRemote waits with files of another machine until they have not changed by the clock of this one: the other clock may be hours behind.
func TestStockRemote(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.w.SetRemote()
	whole := vmcoretest.Sample(t, "vmcore-6.1-x86_64-tiny.elf")
	r.put("10.0.0.5-2026-11-25-08:00:00/vmcore", whole[:50000], 3*time.Hour)
	r.look()
	r.later(4 * time.Minute)
	r.put("10.0.0.5-2026-11-25-08:00:00/vmcore", whole, 2*time.Hour)
	r.later(4 * time.Minute)
	r.none()
	r.later(time.Minute)
	r.none()
	r.later(4 * time.Minute)
	r.one(dumpdir.StateComplete)
}

// TestStockFails logs once why a dump cannot be taken, and takes it when that is over.
func TestStockFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	dir := filepath.Dir(r.put("db/vmcore", (&vmcoretest.Kdump{NrCPUs: 1, Pages: vmcoretest.Pages(8, 4, 4096)}).Bytes(), time.Hour))
	for range 5 {
		r.later(time.Hour)
	}
	r.none()
	if st := r.w.Status()[0]; len(r.log.Lines("which host")) != 1 || st.Failing != 1 {
		t.Errorf("status %+v\n%s", st, r.log.String())
	}
	if err := os.Rename(dir, filepath.Join(r.dir, "db1-202611250800")); err != nil {
		t.Fatal(err)
	}
	r.later(time.Minute)
	if e := r.one(dumpdir.StateComplete); e.Host != "db1" {
		t.Errorf("the host is %s", e.Host)
	}
}
