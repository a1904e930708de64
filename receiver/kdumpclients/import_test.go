package kdumpclients

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// drain does all work that there is.
func drain(t *testing.T, s *Service) {
	t.Helper()
	for rounds := 0; ; rounds++ {
		due := s.due()
		if len(due) == 0 {
			return
		}
		if rounds > 100 {
			t.Fatal("the work does not end")
		}
		for _, j := range due {
			if err := j.work(t.Context()); err != nil && !errors.Is(err, errAgain) {
				t.Fatal(err)
			}
			s.jobs.release(j.dir, false)
		}
	}
}

// settle lets the grace of all directories pass, and does what comes of it.
func settle(t *testing.T, s *Service) {
	t.Helper()
	age(s)
	drain(t, s)
}

// age lets the grace of all directories pass.
func age(s *Service) {
	for _, h := range s.hosts {
		h.mu.Lock()
		for _, d := range h.state.Dirs {
			d.Used = d.Used.Add(-2 * s.cfg.Grace)
		}
		h.mu.Unlock()
	}
	s.wake()
}

// put sends b in writes of n bytes; it ends without Close.
func put(t *testing.T, tr Tree, p string, b []byte, n int) Upload {
	t.Helper()
	u, err := tr.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(b); off += n {
		if _, err := u.WriteAt(b[off:min(off+n, len(b))], int64(off)); err != nil {
			t.Fatalf("write at %d: %v", off, err)
		}
	}
	return u
}

const crash = "/var/crash/10.0.0.5-2026-11-25-08:00:00"

const logText = "[    0.0] Linux version 6.1.0\n[    9.0] Kernel panic - not syncing: sysrq triggered crash\n"

// redhat does what Red Hat's kdump does, with a dump that came whole.
func redhat(t *testing.T, tr Tree, b []byte) {
	t.Helper()
	if err := errors.Join(tr.MkdirAll("/var/crash"), tr.MkdirAll(crash)); err != nil {
		t.Fatal(err)
	}
	send(t, tr, crash+"/vmcore-dmesg-incomplete.txt", logText)
	if err := tr.Rename(crash+"/vmcore-dmesg-incomplete.txt", crash+"/vmcore-dmesg.txt"); err != nil {
		t.Fatal(err)
	}
	if err := put(t, tr, crash+"/vmcore-incomplete", b, 8<<10).Close(); err != nil {
		t.Fatal(err)
	}
	if err := tr.Rename(crash+"/vmcore-incomplete", crash+"/vmcore.flat"); err != nil {
		t.Fatal(err)
	}
	send(t, tr, crash+"/kexec-dmesg.log", "the capture kernel")
}

// only returns the only dump of the store.
func only(t *testing.T, s *Service) storage.Entry {
	t.Helper()
	return onlyOf(t, s, "*")
}

// onlyOf returns the only dump of a host, or of those that a pattern chooses.
func onlyOf(t *testing.T, s *Service, host string) storage.Entry {
	t.Helper()
	list, err := s.cfg.Store.List(t.Context(), storage.Filter{Host: storage.Patterns{host}})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d dumps of %q, %v", len(list), host, err)
	}
	return list[0]
}

// check verifies a dump and returns its image, nil when it has no pages.
func check(t *testing.T, s *Service, e storage.Entry) vmcore.Image {
	t.Helper()
	d, err := s.cfg.Store.Open(t.Context(), e.Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	rep, err := d.Verify(t.Context(), dumpdir.VerifyOptions{})
	if err != nil || rep.Damaged != 0 {
		t.Fatalf("verify: %+v, %v", rep, err)
	}
	name, ok := d.VMCorePath()
	if !ok {
		return nil
	}
	img, err := dumpfile.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = img.Close() })
	return img
}

// samePages compares the pages of got with those of want and returns how many there are.
func samePages(t *testing.T, got, want vmcore.Image) (n int) {
	t.Helper()
	p, q := make([]byte, 4096), make([]byte, 4096)
	for e, err := range got.Pages() {
		if err != nil {
			t.Fatal(err)
		}
		for pfn := e.Start; pfn < e.End(); pfn++ {
			if err := errors.Join(got.ReadPage(p, pfn), want.ReadPage(q, pfn)); err != nil || !bytes.Equal(p, q) {
				t.Fatalf("pfn %d differs: %v", pfn, err)
			}
			n++
		}
	}
	return n
}

func count(t *testing.T, img vmcore.Image) (n int) {
	t.Helper()
	for e, err := range img.Pages() {
		if err != nil {
			t.Fatal(err)
		}
		n += int(e.Count)
	}
	return n
}

func sample(t *testing.T, name string) (vmcore.Image, []byte) {
	t.Helper()
	b := vmcoretest.Sample(t, name)
	img, err := dumpfile.New(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return img, b
}

// wraps are the compressors that clients use.
var wraps = map[string]func(w io.Writer) (io.WriteCloser, error){
	"as it is": func(w io.Writer) (io.WriteCloser, error) { return plainWriter{w}, nil },
	"gzip":     func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	"lz4":      func(w io.Writer) (io.WriteCloser, error) { return lz4.NewWriter(w), nil },
	"xz":       func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	"bzip2":    newBzip2,
	"zstd":     func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	"lz4 -l": func(w io.Writer) (io.WriteCloser, error) {
		lw := lz4.NewWriter(w)
		return lw, lw.Apply(lz4.LegacyOption(true))
	},
}

type plainWriter struct{ io.Writer }

func (plainWriter) Close() error { return nil }

// bzip2Writer runs bzip2, as clients do: Go has no compressor for it.
type bzip2Writer struct {
	io.WriteCloser
	cmd *exec.Cmd
}

func newBzip2(w io.Writer) (io.WriteCloser, error) {
	cmd := exec.CommandContext(context.Background(), "bzip2", "-c")
	cmd.Stdout = w
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &bzip2Writer{in, cmd}, cmd.Start()
}

func (b *bzip2Writer) Close() error { return errors.Join(b.WriteCloser.Close(), b.cmd.Wait()) }

func pack(t *testing.T, b []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := open(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestImport sends real dumps in all forms and compares what comes of them.
func TestImport(t *testing.T) {
	for _, name := range []string{
		"makedumpfile-1.7.6-x86_64-lzo.flat", "makedumpfile-1.7.6-x86_64-elf.flat", "vmcore-6.1-x86_64-tiny.elf",
		"makedumpfile-1.7.6-x86_64-zlib.kdump", "makedumpfile-1.7.6-x86_64-zstd.kdump", "makedumpfile-1.7.6-x86_64-raw.kdump",
	} {
		for wrap, f := range wraps {
			t.Run(name+" "+wrap, func(t *testing.T) {
				want, b := sample(t, name)
				s := open(t, t.TempDir())
				redhat(t, treeOf(t, s, "n1"), pack(t, b, f))
				drain(t, s)
				e := only(t, s)
				got := check(t, s, e)
				if n := samePages(t, got, want); n != count(t, want) || n == 0 {
					t.Errorf("%d pages, want %d", n, count(t, want))
				}
				m := e.Manifest
				if m.State != dumpdir.StateComplete || m.Transport != "ssh" || !strings.Contains(m.PanicLine, "sysrq") || m.Host != "n1" ||
					m.Bytes.Log != int64(len(logText)) || !strings.Contains(m.Sender, "makedumpfile") && !strings.Contains(m.Sender, "/proc/vmcore") {
					t.Errorf("%+v", m)
				}
				if !bytes.Equal(got.Info().Notes, want.Info().Notes) || got.Info().MaxPFN != want.Info().MaxPFN {
					t.Error("notes or max_mapnr differ")
				}
				if raw := strings.HasSuffix(name, "raw.kdump"); raw && (m.Encodings["snappy"] > 0) != (wrap != "as it is") {
					t.Errorf("pages that came uncompressed are stored as %v", m.Encodings)
				}
				wantKept(t, s, e, "kexec-dmesg.log")
			})
		}
	}
}

func wantKept(t *testing.T, s *Service, e storage.Entry, names ...string) {
	t.Helper()
	d, err := s.cfg.Store.Open(t.Context(), e.Ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	kept, err := d.Kept()
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, f := range kept {
		have = append(have, f.Name)
	}
	if fmt.Sprint(have) != fmt.Sprint(names) {
		t.Errorf("kept %q, want %q", have, names)
	}
}

// TestSettled goes on after the dump: what the client sees, the end of its directory, and the next crash at the same time of a wrong clock.
func TestSettled(t *testing.T) {
	s := open(t, t.TempDir())
	tr := treeOf(t, s, "n1")
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	redhat(t, tr, b)
	drain(t, s)
	if got, want := names(t, tr, crash), "kexec-dmesg.log vmcore-dmesg.txt vmcore.flat"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := tr.Open(crash + "/vmcore.flat"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the dump can be read: %v", err)
	}
	settle(t, s)
	if _, err := tr.Stat(crash); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if got := names(t, tr, "/var"); got != "crash" {
		t.Errorf("got %q", got)
	}
	wantStaged(t, s, "n1")
	redhat(t, tr, b)
	drain(t, s)
	if list, err := s.cfg.Store.List(t.Context(), storage.Filter{State: []dumpdir.State{dumpdir.StateComplete}}); err != nil || len(list) != 2 {
		t.Errorf("%d dumps, %v", len(list), err)
	}
}

// records returns where in a flattened stream each record begins.
func records(b []byte) (at []int) {
	for off := 4096; off+16 <= len(b); {
		at = append(at, off)
		size := int64(binary.BigEndian.Uint64(b[off+8:]))
		if size < 0 {
			break
		}
		off += 16 + int(size)
	}
	return at
}

// TestCutStream cuts flattened streams at every record boundary, inside records and around them, and wants a dump of what came.
func TestCutStream(t *testing.T) {
	for _, name := range []string{"makedumpfile-1.7.6-x86_64-lzo.flat", "makedumpfile-1.7.6-x86_64-elf.flat"} {
		want, b := sample(t, name)
		at := records(b)
		all, last := count(t, want), 0
		s := open(t, t.TempDir())
		for i, off := range at {
			end := len(b)
			if i+1 < len(at) {
				end = at[i+1]
			}
			for _, cut := range []int{off, off + 7, off + 16, off + 17, off + 16 + (end-off-16)/2, end - 1} {
				if cut < len(b) {
					last = cutAt(t, s, name, b, cut, want, last)
				}
			}
		}
		if last < all-1 {
			t.Errorf("%s: of a stream without its end marker %d of %d pages were had", name, last, all)
		}
	}
}

func cutAt(t *testing.T, s *Service, name string, b []byte, cut int, want vmcore.Image, last int) int {
	t.Helper()
	host := fmt.Sprint("n", cut)
	tr := treeOf(t, s, host)
	if err := tr.MkdirAll(crash); err != nil {
		t.Fatal(err)
	}
	send(t, tr, crash+"/vmcore-dmesg.txt", logText)
	put(t, tr, crash+"/vmcore-incomplete", b[:cut], 3000).Abort(nil)
	drain(t, s)
	if e := onlyOf(t, s, host); e.Manifest.State != dumpdir.StateArriving {
		t.Fatalf("%s cut at %d: %s before its time", name, cut, e.Manifest.State)
	}
	settle(t, s)
	e := onlyOf(t, s, host)
	img := check(t, s, e)
	n := 0
	if img != nil {
		n = samePages(t, img, want)
	}
	if state := e.Manifest.State; state != dumpdir.StatePartial && (state != dumpdir.StateLogOnly || img != nil) || n < last || e.Manifest.Reason == "" {
		t.Fatalf("%s cut at %d: %s with %d pages, %d before: %s", name, cut, state, n, last, e.Manifest.Reason)
	}
	wantStaged(t, s, host)
	return n
}

// TestCutCycle cuts a dump that makedumpfile wrote in cycles: the 2nd bitmap came in part, and nobody knows how many pages are missing.
func TestCutCycle(t *testing.T) {
	want, b := sample(t, "makedumpfile-1.7.6-x86_64-zlib.kdump")
	k, err := kdumpfile.New(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	from, _ := vmcoretest.Bitmap2(b)
	second, n := int64(from), int64(k.Info().MaxPFN+7)/8
	for _, came := range []int64{n / 2, n} {
		s := open(t, t.TempDir())
		u := put(t, treeOf(t, s, "n1"), "/vmcore", b[:second+came], 1000)
		if _, err := u.WriteAt(b[second+n:len(b)-1], second+n); err != nil {
			t.Fatal(err)
		}
		u.Abort(nil)
		settle(t, s)
		e := only(t, s)
		if samePages(t, check(t, s, e), want) == 0 || e.Manifest.State != dumpdir.StatePartial {
			t.Errorf("%+v", e.Manifest)
		}
		if told := strings.Contains(e.Manifest.Reason, fmt.Sprintf("from pfn %d on", 8*came)); told != (came < n) {
			t.Errorf("%d of %d bytes of the bitmap: %s", came, n, e.Manifest.Reason)
		}
	}
}

// wantStaged wants no bytes of files left over.
func wantStaged(t *testing.T, s *Service, host string) {
	t.Helper()
	left, err := os.ReadDir(s.cfg.Dir + "/" + host)
	if err != nil || len(left) != 1 || left[0].Name() != stateName {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestCompressedCut cuts compressed streams anywhere.
func TestCompressedCut(t *testing.T) {
	want, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	for wrap, f := range wraps {
		packed := pack(t, b, f)
		for _, cut := range []int{1, 3, 20, len(packed) / 2, len(packed) - 1} {
			s := open(t, t.TempDir())
			tr := treeOf(t, s, "n1")
			if err := tr.MkdirAll(crash); err != nil {
				t.Fatal(err)
			}
			err := put(t, tr, crash+"/dump-incomplete", packed[:cut], 1000).Close()
			settle(t, s)
			e := only(t, s)
			if img := check(t, s, e); img != nil {
				samePages(t, img, want)
			}
			if cut >= len(packed)/2 && (err == nil || e.Manifest.State == dumpdir.StateComplete) {
				t.Errorf("%s cut at %d of %d: %v, %s", wrap, cut, len(packed), err, e.Manifest.State)
			}
		}
	}
}
