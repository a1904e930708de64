package kdumpclients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
)

// opened has the services by directory.
var opened = map[string]*Service{}

// open opens a service on its own store in dir. Of one that has the directory it takes the lock alone, as a kill does.
func open(t *testing.T, dir string) *Service {
	t.Helper()
	return openSmall(t, dir, 0)
}

// openSmall is open with another bound of small files.
func openSmall(t *testing.T, dir string, small int64) *Service {
	t.Helper()
	store, err := local.Open(context.Background(), dir, storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if old := opened[dir]; old != nil {
		_ = old.Close() // it may be closed
	}
	s, err := Open(Config{Dir: dir + "/stock", Store: store, small: small})
	if err != nil {
		t.Fatal(err)
	}
	opened[dir] = s
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func treeOf(t *testing.T, s *Service, name string) Tree {
	t.Helper()
	tr, err := s.Tree(Peer{Host: name, Addr: "192.0.2.1:7"})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func send(t *testing.T, tr Tree, p, text string) {
	t.Helper()
	u, err := tr.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.WriteAt([]byte(text), 0); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
}

func fetch(t *testing.T, tr Tree, p string) string {
	t.Helper()
	d, err := tr.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.NewSectionReader(d, 0, d.Size()))
	if err := errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func names(t *testing.T, tr Tree, p string) string {
	t.Helper()
	list, err := tr.ReadDir(p)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, i := range list {
		all = append(all, i.Name())
	}
	return strings.Join(all, " ")
}

// TestTree goes through what clients do at configuration time, and with a status file, over a restart.
func TestTree(t *testing.T) {
	dir := t.TempDir()
	tr := treeOf(t, open(t, dir), "n1")
	if err := tr.MkdirAll("/var//crash/"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tr.MkdirAll("var/crash"), tr.Mkdir("/var/crash/10.0.0.5-2026-11-25-08:00:00")); err != nil {
		t.Fatal(err)
	}
	if err := tr.Mkdir("/var/crash/"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("mkdir again: %v", err)
	}
	tmp, err := tr.MkdirTemp("/var/crash")
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Rmdir(tmp); err != nil {
		t.Error(err)
	}
	if err := tr.Rmdir(tmp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rmdir again: %v", err)
	}
	send(t, tr, "/var/crash/kdump.status", "fail")
	send(t, tr, "/var/crash/kdump.status", "success")
	if err := tr.Rename("/var/crash/kdump.status", "../../var/crash/x"); err != nil {
		t.Error(err)
	}
	tr = treeOf(t, open(t, dir), "n1")
	if got := fetch(t, tr, "/var/crash//x"); got != "success" {
		t.Errorf("got %q", got)
	}
	if got, want := names(t, tr, "/var/crash"), "10.0.0.5-2026-11-25-08:00:00 x"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := treeOf(t, open(t, dir), "n2").Open("/var/crash/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another host: %v", err)
	}
}

// TestRefused asks for what no client may have.
func TestRefused(t *testing.T) {
	tr := treeOf(t, open(t, t.TempDir()), "n1")
	send(t, tr, "/f", "text")
	if send(t, tr, "/new/dir/f", "text"); names(t, tr, "/new/dir") != "f" {
		t.Errorf("in a directory that was missing: %q", names(t, tr, "/new/dir"))
	}
	if err := tr.Mkdir("/d"); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ got, want error }{
		"directory below a file":   {tr.MkdirAll("/f/d"), syscall.ENOTDIR},
		"directory that is a file": {tr.MkdirAll("/f"), fs.ErrExist},
		"rmdir of the root":        {tr.Rmdir("../.."), fs.ErrPermission},
		"rmdir of a file":          {tr.Rmdir("/f"), syscall.ENOTDIR},
		"rename of a directory":    {tr.Rename("/d", "/e"), fs.ErrPermission},
		"rename over one":          {tr.Rename("/f", "/d"), fs.ErrExist},
		"rename of nothing":        {tr.Rename("/g", "/h"), fs.ErrNotExist},
		"rename to nowhere":        {tr.Rename("/f", "/g/h"), fs.ErrNotExist},
		"NUL in a name":            {tr.Mkdir("/a\x00b"), fs.ErrInvalid},
		"a C1 character in a name": {tr.Mkdir("/a\u009bb"), fs.ErrInvalid},
		"a byte of no UTF-8":       {tr.Mkdir("/a\x9bb"), fs.ErrInvalid},
		"a bidirectional mark":     {tr.Mkdir("/a\u202eb"), fs.ErrInvalid},
		"a zero-width space":       {tr.Mkdir("/a\u200bb"), fs.ErrInvalid},
		"a long name":              {tr.Mkdir(strings.Repeat("a", 256)), fs.ErrInvalid},
		"a deep path":              {tr.Mkdir(strings.Repeat("/a", 17)), fs.ErrInvalid},
	} {
		if !errors.Is(tc.got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, tc.got, tc.want)
		}
	}
	for p, want := range map[string]error{"/d": syscall.EISDIR, "/": syscall.EISDIR, "/f/g": syscall.ENOTDIR} {
		if _, err := tr.Create(p); !errors.Is(err, want) {
			t.Errorf("create %s: got %v, want %v", p, err, want)
		}
	}
	if _, err := treeOf(t, open(t, t.TempDir()), "n1").Stat("/f"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
}

// TestBounds makes as many directories as there may be. Old ones that are empty make room.
func TestBounds(t *testing.T) {
	s := open(t, t.TempDir())
	tr := treeOf(t, s, "n1")
	dir := func(i int) string { return fmt.Sprintf("/var/crash/%d", i) }
	for i := range maxDirs - 3 { // beside the root and two parents
		if err := tr.Mkdir(dir(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Mkdir("/more"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	send(t, tr, dir(1)+"/file", "text")
	for i := range 3 {
		s.hosts["n1"].state.Dirs[dir(i)].Used = time.Now().Add(-2 * tempFor)
	}
	if err := errors.Join(tr.Mkdir("/more"), tr.Mkdir("/and/more")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	for p, want := range map[string]bool{dir(0): false, dir(1): true, dir(2): false, dir(3): true, "/more": true} {
		if _, err := tr.Stat(p); (err == nil) != want {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// TestDamagedTree puts a tree aside that cannot be read.
func TestDamagedTree(t *testing.T) {
	for _, text := range []string{"", "{", "{\"version\":9}", `{"version":1,"next":1,"dirs":{"/":{},"/../x":{}}}`, `{"version":1,"next":1,"dirs":{"/":{"files":{"a/b":{}}}}}`} {
		dir := t.TempDir()
		send(t, treeOf(t, open(t, dir), "n1"), "/f", "text")
		if err := os.WriteFile(dir+"/stock/n1/"+stateName, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		tr := treeOf(t, open(t, dir), "n1")
		send(t, tr, "/g", "text")
		if got := names(t, tr, "/"); got != "g" {
			t.Errorf("%s: got %q", text, got)
		}
		if aside, err := filepath.Glob(dir + "/stock/.damaged-n1-*/1.file"); err != nil || len(aside) != 1 {
			t.Errorf("%s: put aside: %q, %v", text, aside, err)
		}
	}
}

// TestLocked opens a directory that another service has.
func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := Open(s.cfg); !errors.Is(err, dumpdir.ErrLocked) {
		t.Errorf("got %v", err)
	}
	open(t, dir)
}

func TestHostNames(t *testing.T) {
	s := open(t, t.TempDir())
	for _, name := range []string{"", "..", "a/b", "/etc"} {
		if _, err := s.Tree(Peer{Host: name}); !errors.Is(err, storage.ErrBadName) {
			t.Errorf("host %q: %v", name, err)
		}
	}
}
