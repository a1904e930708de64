package kdumpclients

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// client is the order in which a distribution's kdump sends its files into a directory.
type client struct {
	dir              string
	log, dump, named string // named: what dump is renamed to, if anything
	after            string
}

var clients = map[string]client{
	"Red Hat": {crash, "vmcore-dmesg-incomplete.txt", "vmcore-incomplete", "vmcore.flat", "kexec-dmesg.log"},
	"Debian":  {"/var/crash/10.0.0.5-202611250800", "dmesg.202611250800", "dump-incomplete", "dump.202611250800", ""},
	"SUSE":    {"/dumps/host-2026-11-25-08-00", "dmesg", "vmcore", "", "README.txt"},
}

// begin sends the log and the first part of the dump.
func (c *client) begin(t *testing.T, tr Tree, log string, b []byte) Upload {
	t.Helper()
	if err := tr.MkdirAll(c.dir); err != nil {
		t.Fatal(err)
	}
	if c.after == "README.txt" {
		send(t, tr, c.dir+"/README.txt", "the crash dump is likely incomplete")
	}
	send(t, tr, c.dir+"/"+c.log, log)
	if c.log == "vmcore-dmesg-incomplete.txt" {
		if err := tr.Rename(c.dir+"/"+c.log, c.dir+"/vmcore-dmesg.txt"); err != nil {
			t.Fatal(err)
		}
	}
	return put(t, tr, c.dir+"/"+c.dump, b, 8<<10)
}

// all sends everything, with a vmlinux.
func (c *client) all(t *testing.T, tr Tree, log string, b, vmlinux []byte) {
	t.Helper()
	if err := c.begin(t, tr, log, b).Close(); err != nil {
		t.Fatal(err)
	}
	if c.named != "" {
		if err := tr.Rename(c.dir+"/"+c.dump, c.dir+"/"+c.named); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(t, tr, c.dir+"/vmlinux-6.1", vmlinux, 8<<10).Close(); err != nil {
		t.Fatal(err)
	}
	if c.after != "" {
		send(t, tr, c.dir+"/"+c.after, "saved successfully")
	}
}

// crashLog is the log of the n-th crash.
func crashLog(n int) string {
	return fmt.Sprintf("[    0.0] Linux version 6.1.0\n[    9.0] Kernel panic - not syncing: crash number %d\n", n)
}

// dumpsOf returns the dumps, the oldest first, and checks that each has its own log.
func dumpsOf(t *testing.T, s *Service, want ...dumpdir.State) []storage.Entry {
	t.Helper()
	list, err := s.cfg.Store.List(t.Context(), storage.Filter{})
	if err != nil || len(list) != len(want) {
		t.Fatalf("%d dumps, want %d: %v", len(list), len(want), err)
	}
	slices.SortFunc(list, func(a, b storage.Entry) int { return strings.Compare(a.Manifest.PanicLine, b.Manifest.PanicLine) })
	for i, e := range list {
		log, err := os.ReadFile(filepath.Join(e.Path, dumpdir.LogName))
		if err != nil || string(log) != crashLog(i+1) || e.Manifest.State != want[i] {
			t.Errorf("dump %d is %s (%s) with the log %q, %v; want %s", i+1, e.Manifest.State, e.Manifest.Reason, log, err, want[i])
		}
	}
	return list
}

// TestCrashedAgain has a machine crash twice in the minute that its directory is named for.
func TestCrashedAgain(t *testing.T) {
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	vmlinux := (&vmcoretest.Core{Type: 2, Loads: []vmcoretest.Load{{Data: bytes.Repeat([]byte("text"), 1<<12)}}}).Bytes()
	const complete, logOnly = dumpdir.StateComplete, dumpdir.StateLogOnly
	for name, c := range clients {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %v", name, restarted), func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir)
				tr := treeOf(t, s, "n1")
				next := func() {
					if drain(t, s); restarted {
						s = open(t, dir)
						tr = treeOf(t, s, "n1")
					}
				}
				c.all(t, tr, crashLog(1), b, vmlinux)
				next()
				c.all(t, tr, crashLog(2), b, vmlinux)
				next()
				settle(t, s)
				for _, e := range dumpsOf(t, s, complete, complete) {
					wantKeptBytes(t, e, "vmlinux-6.1", vmlinux)
				}
				wantStaged(t, s, "n1")
			})
			t.Run(fmt.Sprintf("%s dies %v", name, restarted), func(t *testing.T) {
				partial := dumpdir.StatePartial
				dir := t.TempDir()
				s := open(t, dir)
				tr := treeOf(t, s, "n1")
				first := c.begin(t, tr, crashLog(1), b[:len(b)-20]) // the machine dies, and the connection is still there
				drain(t, s)
				second := c.begin(t, tr, crashLog(2), nil)
				if restarted {
					s = open(t, dir)
				} else {
					drain(t, s)
					first.Abort(nil)
					second.Abort(nil)
				}
				settle(t, s)
				settle(t, s)
				if restarted {
					partial = logOnly // no checkpoint was due
				}
				dumpsOf(t, s, partial, logOnly)
			})
		}
	}
}

// TestThirdCrash has three crashes wait for one import.
func TestThirdCrash(t *testing.T) {
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	s := open(t, t.TempDir())
	tr := treeOf(t, s, "n1")
	c := clients["SUSE"]
	for n := range 3 {
		c.all(t, tr, crashLog(n+1), b, nil)
	}
	settle(t, s)
	settle(t, s)
	dumpsOf(t, s, dumpdir.StateComplete, dumpdir.StateComplete, dumpdir.StateComplete)
	wantStaged(t, s, "n1")
}
