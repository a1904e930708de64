package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/sender/nfsfs"
	"github.com/corehaul/corehaul/sender/nfsfs/nfs3"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// watching is a receiver that watches a directory on the export of a Ganesha.
type watching struct {
	t           *testing.T
	g           *lab.Ganesha
	dump        string // a small file
	dir, beside string // both on the export; only dir is watched
	s           *judgesStore
	sent        int
}

// send sends another dump to a directory over NFS, and returns the directory of the dump.
func (w *watching) send(to string) (dir string) {
	w.t.Helper()
	w.sent++
	own := filepath.Join(w.t.TempDir(), "vmcore")
	fulldiskCopy(w.t, w.dump, own, w.sent)
	judgesRun(w.t, 0, "corehaul-send", "send", "--to", nfsTarget(w.t, w.g, w.g.Addr, to), own)
	at := time.Unix(1_700_000_000+int64(w.sent), 0).UTC().Format(dumpdir.TimeLayout)
	found, err := filepath.Glob(filepath.Join(to, "dumps", "*", at+"-*"))
	if err != nil || len(found) != 1 {
		w.t.Fatalf("the dump is %q, %v", found, err)
	}
	return found[0]
}

// await waits until the receiver's "ls" has a dump of a directory in a state.
func (w *watching) await(dir, state string) {
	w.t.Helper()
	_, short, _ := strings.Cut(filepath.Base(dir), "-")
	begin := time.Now()
	serveWait(w.t, short+" "+state, func() bool {
		for line := range strings.Lines(w.ls()) {
			if strings.Contains(line, short) {
				if !strings.Contains(line, state) {
					w.t.Fatalf("%s is to be %s:\n%s", short, state, line)
				}
				w.t.Logf("%s is %s after %v", short, state, time.Since(begin).Round(time.Millisecond))
				return true
			}
		}
		return false
	})
}

func (w *watching) ls() string {
	w.t.Helper()
	out, _ := judgesRun(w.t, 0, "corehaul", "ls", "--data", w.s.data)
	return out
}

// move moves a dump that was sent beside the watched directory into it, as another one of this host.
func (w *watching) move(dir string) {
	w.t.Helper()
	to := filepath.Join(w.dir, "dumps", filepath.Base(filepath.Dir(dir)), filepath.Base(dir))
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.Rename(dir, to)); err != nil {
		w.t.Fatal(err)
	}
}

// TestWatch sends dumps to Ganesha's export, which a receiver watches: "ls" has each soon after its seal, as good as it is there. What was removed does
// not come again, also after a restart.
func TestWatch(t *testing.T) {
	t.Parallel()
	k, err := lab.GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	flat, plain := stockStream(t, k, failoverELF(t), "-l", "-d", "31")
	export := t.TempDir()
	w := &watching{t: t, dump: plain, dir: filepath.Join(export, "crash"), beside: filepath.Join(export, "beside")}
	w.g = nfsServer(t, lab.GaneshaExport{Path: export})
	w.s = judgesServe(t, "--report-jobs", "0", "--watch", w.dir) // which does not exist yet
	first := w.send(w.dir)
	w.await(first, "complete")
	d := w.s.one(t)
	judgesRun(t, 0, "corehaul", "verify", "--data", w.s.data, d.ID)
	want, err := os.ReadFile(filepath.Join(first, "SHA256SUMS"))
	if got, gotErr := os.ReadFile(filepath.Join(d.Path, "SHA256SUMS")); err != nil || gotErr != nil || !bytes.Equal(got, want) {
		t.Errorf("the sums of the copy: %v, %v", err, gotErr)
	}

	flipped, cut := w.send(w.beside), w.send(w.beside)
	if err := errors.Join(watchFlip(filepath.Join(flipped, "vmcore")), os.Truncate(filepath.Join(cut, "vmcore"), 3<<20)); err != nil {
		t.Fatal(err)
	}
	w.move(flipped)
	w.move(cut)
	w.await(flipped, "damaged")
	w.await(cut, "damaged")

	judgesRun(t, 0, "corehaul", "rm", "--data", w.s.data, d.ID)
	w.s.end(t)
	w.s.start(t)
	w.stock(flat)
	if out := w.ls(); strings.Contains(out, d.ID[:8]) {
		t.Errorf("a dump that was removed is there again:\n%s", out)
	}
	out, _ := judgesRun(t, 0, "corehaul", "status", "--data", w.s.data)
	if text := fmt.Sprintf("%s: 3 taken since start, 0 arriving, 0 that cannot be taken", w.dir); !strings.Contains(out, text) {
		t.Errorf("status does not say %q:\n%s", text, out)
	}
}

// watchFlip flips a bit in the middle of a file.
func watchFlip(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	b := make([]byte, 1)
	if err == nil {
		_, err = f.ReadAt(b, st.Size()/2)
	}
	if err == nil {
		b[0] ^= 1
		_, err = f.WriteAt(b, st.Size()/2)
	}
	return errors.Join(err, f.Close())
}

// stock writes what kdump writes: a dump over NFS, a flattened one, and one that broke off an hour ago.
func (w *watching) stock(flat string) {
	w.t.Helper()
	whole, err := os.ReadFile(w.dump)
	if err != nil {
		w.t.Fatal(err)
	}
	another := filepath.Join(w.t.TempDir(), "another")
	fulldiskCopy(w.t, w.dump, another, 99)
	red, suse, debian := filepath.Join(w.dir, "10.0.2.15-2026-11-25-08:00:00"), filepath.Join(w.dir, "2026-11-25-08-00"), filepath.Join(w.dir, "202611250800")
	half, old := filepath.Join(debian, "dump-incomplete.202611250800"), time.Now().Add(-time.Hour)
	err = errors.Join(os.Mkdir(suse, 0o755), os.Mkdir(debian, 0o755), os.WriteFile(half, whole[:len(whole)/2], 0o600), os.Chtimes(half, old, old),
		os.Rename(flat, filepath.Join(suse, "vmcore.flat")))
	if err != nil {
		w.t.Fatal(err)
	}
	w.copyOverNFS(another, red)
	begin := time.Now()
	serveWait(w.t, "three dumps of kdump", func() bool {
		states := map[string]int{}
		for _, d := range w.s.list(w.t) {
			if d.Manifest.Transport == "file" {
				states[d.Manifest.State]++
			}
		}
		return states["complete"] == 2 && states["partial"] == 1
	})
	w.t.Logf("the dumps of kdump are there after %v", time.Since(begin).Round(time.Millisecond))
}

// copyOverNFS writes a dump to the server as Red Hat's kdump does: under the name of an unfinished one first.
func (w *watching) copyOverNFS(from, dir string) {
	w.t.Helper()
	target, err := url.Parse(nfsTarget(w.t, w.g, w.g.Addr, dir))
	if err != nil {
		w.t.Fatal(err)
	}
	server, dir, err := nfs3.ParseURL(target)
	if err != nil {
		w.t.Fatal(err)
	}
	files, err := nfsfs.Mount(w.t.Context(), server, dir, "kdump")
	if err != nil {
		w.t.Fatal(err)
	}
	defer files.Close()
	text, err := os.ReadFile(from)
	if err == nil {
		err = files.MkdirAll(files.Root())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	unfinished := path.Join(files.Root(), "vmcore-incomplete")
	f, err := files.Create(unfinished)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = f.WriteAt(text, 0)
	err = errors.Join(err, f.Sync(), f.Close(), files.Rename(unfinished, path.Join(files.Root(), "vmcore")))
	// The server keeps the file open for writing, so a look waits until it has not changed for five minutes. The test does not.
	local, old := filepath.Join(w.dir, filepath.Base(dir), "vmcore"), time.Now().Add(-time.Hour)
	if err := errors.Join(err, os.Chtimes(local, old, old)); err != nil {
		w.t.Fatal(err)
	}
}

// watchStored is what a sender says of pages that are durable.
var watchStored = regexp.MustCompile(`sending: [1-9]\d* of \d+ pages`)

// TestWatchAbandoned kills a sender in the middle of a dump that it writes over NFS. While it writes, nothing is taken. When it is gone for the grace,
// the dump is partial, and when it has come back and finished, complete.
func TestWatchAbandoned(t *testing.T) {
	t.Parallel() // it waits more than it computes
	export := t.TempDir()
	w := &watching{t: t, dump: failoverELF(t), dir: export}
	w.g = nfsServer(t, lab.GaneshaExport{Path: export})
	w.s = judgesServe(t, "--report-jobs", "0", "--resume-grace", "6s", "--watch", export)
	l := newLine(t, w.g.Addr)
	l.slow(t, killRate/24) // the rest takes far longer than the grace
	args := []string{"--to", nfsTarget(t, w.g, l.Listen, export), "--level", "31", "--progress", "100ms", w.dump}
	p := serveSend(t, nil, args...)
	var stored time.Time
	serveWait(t, "stored pages, and then the grace", func() bool {
		if stored.IsZero() && watchStored.MatchString(p.said()) {
			stored = time.Now()
		}
		return !stored.IsZero() && time.Since(stored) > 7*time.Second
	})
	if list := w.s.list(t); len(list) != 0 {
		t.Fatalf("taken while its sender writes: %+v", list)
	}
	p.kill(t)
	serveWait(t, "the abandoned dump", func() bool { return len(w.s.list(t)) == 1 })
	d := w.s.one(t)
	if d.Manifest.State != "partial" || d.Manifest.Pages.Present == 0 || !strings.Contains(d.Manifest.Reason, "did not come back") {
		t.Errorf("the abandoned dump: %+v", d.Manifest)
	}
	judgesRun(t, 3, "corehaul", "verify", "--data", w.s.data, d.ID)
	_, said := judgesRun(t, 0, "corehaul-send", "send", "--to", nfsTarget(t, w.g, w.g.Addr, export), "--level", "31", w.dump)
	if strings.Contains(said, " to send, the receiver has 0 of them") {
		t.Errorf("it began at nothing:\n%s", said)
	}
	serveWait(t, "the whole dump", func() bool { return w.s.one(t).Manifest.State == "complete" })
	judgesRun(t, 0, "corehaul", "verify", "--data", w.s.data, d.ID)
}

// hangingMount mounts a file system that answers nothing, until the returned function is called: its server is this process, which never reads a
// request. Then it is a file system whose server is gone.
func hangingMount(t *testing.T, dir string) (gone func()) {
	t.Helper()
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("hang", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse.Fd())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	gone = sync.OnceFunc(func() { _ = fuse.Close() })
	t.Cleanup(gone)
	return gone
}

// TestWatchHang watches a file system that hangs from the start on, beside one that works: the receiver starts, takes dumps, says what hangs, and ends.
func TestWatchHang(t *testing.T) {
	t.Parallel() // it waits for a minute and computes nothing
	hung, dir := t.TempDir(), t.TempDir()
	gone := hangingMount(t, hung)
	s := judgesServe(t, "--report-jobs", "0", "--watch", hung, "--watch", dir)
	begin := time.Now()
	path := filepath.Join(dir, "202611250800")
	err := errors.Join(os.Mkdir(path, 0o755),
		os.WriteFile(filepath.Join(path, "dump.202611250800"), vmcoretest.Sample(t, "vmcore-6.1-x86_64-tiny.elf"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	serveWait(t, "the dump", func() bool { return len(s.list(t)) == 1 })
	t.Logf("taken after %v", time.Since(begin).Round(time.Millisecond))
	says := func(part string) func() bool {
		return func() bool {
			out, _ := judgesRun(t, 0, "corehaul", "status", "--data", s.data)
			return strings.Contains(out, hung+" cannot be read: "+part)
		}
	}
	serveWait(t, "word of the hang", says("it does not answer"))
	gone()
	serveWait(t, "word of the error", says("statfs "))
	if n := strings.Count(s.said(t), "does not answer; its file system may hang"); n != 1 {
		t.Errorf("%d lines of the log say that it hangs", n)
	}
	again := hangingMount(t, hung)
	defer again()
	s.end(t)
	s.start(t)
	serveWait(t, "the answer of a receiver that hangs nowhere", func() bool { return len(s.list(t)) == 1 })
	begin = time.Now()
	s.end(t)
	t.Logf("ended after %v", time.Since(begin).Round(time.Millisecond))
}
