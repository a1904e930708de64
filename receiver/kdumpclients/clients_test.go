package kdumpclients

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// TestAgain has clients try again: while the first try hangs, after it broke off, and after it was made a dump.
func TestAgain(t *testing.T) {
	want, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	s := open(t, t.TempDir())
	tr := treeOf(t, s, "n1")
	hung := put(t, tr, "/vmcore", b[:50000], 1000)
	put(t, tr, "/vmcore", b[:60000], 1000).Abort(nil)
	if err := put(t, tr, "/vmcore", b, 5000).Close(); err != nil {
		t.Fatal(err)
	}
	waitErr(t, hung, errRevoked)
	drain(t, s)
	e := only(t, s)
	if n := samePages(t, check(t, s, e), want); e.Manifest.State != dumpdir.StateComplete || n != count(t, want) {
		t.Errorf("%s, %d pages", e.Manifest.State, n)
	}
	// Debian's fallback: the stream breaks off, a raw copy follows. And a second whole dump is another one.
	put(t, tr, "/dump-incomplete", b[:60000], 1000).Abort(nil)
	_, raw := sample(t, "vmcore-6.1-x86_64-tiny.elf")
	if err := put(t, tr, "/vmcore-incomplete", raw, 5000).Close(); err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	settle(t, s)
	list, err := s.cfg.Store.List(t.Context(), storage.Filter{})
	if err != nil || len(list) != 2 || list[0].Manifest.State != dumpdir.StateComplete || list[1].Manifest.State != dumpdir.StateComplete {
		t.Errorf("%+v, %v", list, err)
	}
	wantStaged(t, s, "n1")
}

// TestKilled stops the service at any point and opens it again, without a word to the first one.
func TestKilled(t *testing.T) {
	want, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	dir := t.TempDir()
	tr := treeOf(t, open(t, dir), "n1")
	if err := tr.MkdirAll(crash); err != nil {
		t.Fatal(err)
	}
	send(t, tr, crash+"/vmcore-dmesg.txt", logText)
	u := put(t, tr, crash+"/vmcore", b[:len(b)-20], 1000)
	if err := u.(*upload).sink.image().sync(); err != nil { // what a checkpoint does
		t.Fatal(err)
	}
	s := open(t, dir)
	drain(t, s)
	if e := only(t, s); e.Manifest.State != dumpdir.StateArriving || !s.Owns(e.Ref) || e.Manifest.Bytes.Log == 0 {
		t.Errorf("%+v", e.Manifest)
	}
	settle(t, s)
	e := only(t, s)
	if n := samePages(t, check(t, s, e), want); n == 0 || e.Manifest.State != dumpdir.StatePartial || s.Owns(e.Ref) {
		t.Errorf("%s with %d pages", e.Manifest.State, n)
	}
	// A dump that was sealed before the tree could say so.
	tr = treeOf(t, s, "n2")
	redhat(t, tr, b)
	before, err := os.ReadFile(dir + "/stock/n2/" + stateName)
	if err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	if err := os.WriteFile(dir+"/stock/n2/"+stateName, before, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	drain(t, s)
	e = onlyOf(t, s, "n2")
	if e.Manifest.State != dumpdir.StateComplete {
		t.Errorf("%+v", e.Manifest)
	}
	check(t, s, e)
	wantKept(t, s, e, "kexec-dmesg.log")
}

// TestKilledInLog stops the service while a log arrives. What came of it is stored as the log.
func TestKilledInLog(t *testing.T) {
	dir := t.TempDir()
	tr := treeOf(t, open(t, dir), "n1")
	if err := tr.MkdirAll(crash); err != nil {
		t.Fatal(err)
	}
	put(t, tr, crash+"/vmcore-dmesg-incomplete.txt", []byte(logText), 10)
	s := open(t, dir)
	settle(t, s)
	if m := only(t, s).Manifest; m.State != dumpdir.StateLogOnly || m.Bytes.Log != int64(len(logText)) {
		t.Errorf("%s with a log of %d bytes", m.State, m.Bytes.Log)
	}
}

// TestStatusFile goes through kdump's test mode.
func TestStatusFile(t *testing.T) {
	s := open(t, t.TempDir())
	tr := treeOf(t, s, "n1")
	const dir = "/var/crash/kdump-test-1764057600"
	if err := tr.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	send(t, tr, dir+"/vmcore-creation.status", "fail kdump_test_id=1764057600\n")
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	if err := put(t, tr, dir+"/vmcore-incomplete", b, 5000).Close(); err != nil {
		t.Fatal(err)
	}
	send(t, tr, dir+"/vmcore-creation.status", "success kdump_test_id=1764057600\n")
	drain(t, s)
	settle(t, s)
	if got := fetch(t, tr, dir+"/vmcore-creation.status"); !strings.HasPrefix(got, "success") {
		t.Errorf("got %q", got)
	}
	if got := names(t, tr, dir); got != "vmcore-creation.status" {
		t.Errorf("got %q", got)
	}
	if m := only(t, s).Manifest; m.State != dumpdir.StateComplete {
		t.Errorf("%+v", m)
	}
	s.hosts["n1"].state.Dirs[dir].Used = time.Now().Add(-25 * time.Hour)
	drain(t, s)
	if _, err := tr.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after a day: %v", err)
	}
}

// TestSUSE sends its files, without a log for a dump and a dump without a log.
func TestSUSE(t *testing.T) {
	s := open(t, t.TempDir())
	tr := treeOf(t, s, "n1")
	const dir = "/dumps/host-2026-11-25-08-00"
	if err := tr.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	send(t, tr, dir+"/README.txt", "the crash dump is likely incomplete")
	if err := put(t, tr, dir+"/vmcore", b, 5000).Close(); err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	send(t, tr, dir+"/README.txt", "vmcore status: saved successfully")
	drain(t, s)
	e := only(t, s)
	wantKept(t, s, e, "README.txt")
	kept, err := os.ReadFile(e.Path + "/files/README.txt")
	if err != nil || !strings.Contains(string(kept), "successfully") {
		t.Errorf("kept %q, %v", kept, err)
	}
	settle(t, s)
	send(t, tr, "/dmesg", logText)
	settle(t, s)
	list, err := s.cfg.Store.List(t.Context(), storage.Filter{State: []dumpdir.State{dumpdir.StateLogOnly}})
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Manifest.PanicLine, "sysrq") {
		t.Errorf("%+v, %v", list, err)
	}
}

// waitErr waits until calls on u fail with err.
func waitErr(t *testing.T, u Upload, want error) {
	t.Helper()
	until(t, "the upload ends", func() bool {
		_, err := u.WriteAt([]byte{0}, 0)
		return errors.Is(err, want)
	})
}
