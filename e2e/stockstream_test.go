package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/receiver/kdumpclients"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// stockRig is a store that takes the streams of stock kdump clients.
type stockRig struct {
	data  string
	store storage.Store
	svc   *kdumpclients.Service
	tree  kdumpclients.Tree
}

func newStockRig(t *testing.T, grace time.Duration) *stockRig {
	t.Helper()
	r := &stockRig{data: t.TempDir()}
	var err error
	if r.store, err = local.Open(t.Context(), r.data, storage.OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.store.Close() })
	if r.svc, err = kdumpclients.Open(kdumpclients.Config{Dir: filepath.Join(r.data, "stock"), Store: r.store, Grace: grace}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.svc.Close() })
	if r.tree, err = r.svc.Tree(kdumpclients.Peer{Host: "n1", Addr: "192.0.2.1:22"}); err != nil {
		t.Fatal(err)
	}
	return r
}

// send writes a file as dd does. It returns what the end of it said.
func (r *stockRig) send(t *testing.T, name string, in io.Reader) error {
	t.Helper()
	u, err := r.tree.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	buf, off := make([]byte, 32<<10), int64(0)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if _, err := u.WriteAt(buf[:n], off); err != nil {
				t.Fatal(err)
			}
			off += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return u.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// sealed lets the service work until the dump is sealed.
func (r *stockRig) sealed(t *testing.T) storage.Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	done := make(chan error, 1)
	go func() { done <- r.svc.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for ctx.Err() == nil {
		list, err := r.store.List(ctx, storage.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 1 && list[0].Manifest.State != dumpdir.StateArriving {
			return list[0]
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("no dump was sealed")
	return storage.Entry{}
}

// stockStream has makedumpfile write a stream, and put it together again for comparison.
func stockStream(t *testing.T, k *lab.Kernel, elf string, flags ...string) (flat, plain string) {
	t.Helper()
	dir := t.TempDir()
	flat, plain = filepath.Join(dir, "flat"), filepath.Join(dir, "plain")
	dump, err := k.MakedumpfileCommand(t.Context(), append(append([]string{"--message-level", "4", "-F"}, flags...), elf)...)
	if err != nil {
		t.Fatal(err)
	}
	back, err := k.MakedumpfileCommand(t.Context(), "--message-level", "4", "-R", plain)
	if err != nil {
		t.Fatal(err)
	}
	stockPipe(t, dump, "", flat)
	stockPipe(t, back, flat, "")
	return flat, plain
}

// stockPipe runs a command with files as its standard input and output.
func stockPipe(t *testing.T, argv []string, in, out string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	var text bytes.Buffer
	cmd.Stderr = &text
	if in != "" {
		f, err := os.Open(in)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		cmd.Stdin = f
	}
	if out != "" {
		f, err := os.Create(out)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		cmd.Stdout = f
	}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, text.String())
	}
}

// TestStockStreams sends what makedumpfile writes of a real crash, in all its formats and through the compressors that clients use, and
// compares what is stored with what makedumpfile itself makes of the stream.
func TestStockStreams(t *testing.T) {
	t.Parallel()
	c, k, vmlinux := judgesCapture(t, "6.1")
	packers := []string{"", "gzip", "bzip2", "lz4", "xz"}
	for name, flags := range map[string][]string{
		"lzo": {"-l", "-d", "31"}, "zlib": {"-c", "-d", "31"}, "zstd": {"-z", "-d", "31"}, "ELF": {"-E", "-d", "31"}, "lzo, level 1": {"-l", "-d", "1"},
		"lzo, in cycles": {"-l", "-d", "31", "--cyclic-buffer", "4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flat, plain := stockStream(t, k, c.ELF, flags...)
			use := packers[:1]
			if name == "lzo" {
				use = packers
			}
			for _, packer := range use {
				in := flat
				if packer != "" {
					in = flat + "." + packer
					stockPipe(t, []string{packer, "-c"}, flat, in)
				}
				stored := stockCompare(t, in, plain)
				if name == "lzo" && packer == "" {
					commands := []string{"sys", "log", "bt -a", "ps", "mod"}
					judgesSame(t, judgesCrash(t, vmlinux, stored, commands...), judgesCrashOriginal(t, c, commands...))
				}
			}
		})
	}
}

// stockCompare sends a file and returns the vmcore that comes of it.
func stockCompare(t *testing.T, in, plain string) string {
	t.Helper()
	r := newStockRig(t, time.Hour)
	f, err := os.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	start := time.Now()
	if err := r.send(t, "vmcore-incomplete", f); err != nil {
		t.Fatal(err)
	}
	arrived := time.Since(start)
	staged := filepath.Join(r.data, "stock", "n1", "1.image")
	if out, err := exec.CommandContext(t.Context(), "cmp", staged, plain).CombinedOutput(); err != nil {
		t.Errorf("put together otherwise than by makedumpfile -R: %s", out)
	}
	start = time.Now()
	e := r.sealed(t)
	t.Logf("%s: arrived in %v, a dump after %v: %s, %d pages", filepath.Base(in), arrived, time.Since(start), e.Manifest.Sender, e.Manifest.Pages.Present)
	if e.Manifest.State != dumpdir.StateComplete || e.Manifest.PanicLine == "" || e.Manifest.Release == "" {
		t.Errorf("%+v", e.Manifest)
	}
	stored := filepath.Join(e.Path, dumpdir.VMCoreName)
	if strings.Contains(e.Manifest.Sender, "elf") {
		stockSame(t, stored, plain)
	} else if got, want := judgesPages(t, stored), judgesPages(t, plain); got != want {
		t.Errorf("pages %+v, want %+v", got, want)
	}
	r.checkSound(t, e)
	return stored
}

// stockSame compares the pages of two files by our own readers: in an ELF core, libkdumpfile sees pages that were left out behind a
// PT_LOAD as zeros.
func stockSame(t *testing.T, stored, plain string) {
	t.Helper()
	var runs [2][]mem.Extent
	var sums [2][]uint32
	for i, name := range []string{stored, plain} {
		img, err := dumpfile.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if runs[i], err = levelsCollect(img.Pages()); err == nil {
			sums[i], err = levelsSums(img, runs[i])
		}
		if err := errors.Join(err, img.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if levelsCount(runs[0]) == 0 || !slices.Equal(runs[0], runs[1]) || !slices.Equal(sums[0], sums[1]) {
		t.Errorf("%d pages, want %d, or others", levelsCount(runs[0]), levelsCount(runs[1]))
	}
}

// checkSound has the dump verified by all.
func (r *stockRig) checkSound(t *testing.T, e storage.Entry) {
	t.Helper()
	code := 0
	if e.Manifest.State == dumpdir.StatePartial {
		code = 3
	}
	judgesRun(t, code, "corehaul", "verify", "--data", r.data, e.ID)
	sums := exec.CommandContext(t.Context(), "sha256sum", "-c", "--strict", "SHA256SUMS")
	sums.Dir = e.Path
	if out, err := sums.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
}

// TestStockStreamCut cuts a real stream here and there and wants a sound dump of what came, all of whose pages are right.
func TestStockStreamCut(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{"at once": {"-l", "-d", "31"}, "in cycles": {"-l", "-d", "31", "--cyclic-buffer", "4"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stockCut(t, flags)
		})
	}
}

func stockCut(t *testing.T, flags []string) {
	t.Helper()
	c, k, vmlinux := judgesCapture(t, "6.1")
	flat, plain := stockStream(t, k, c.ELF, flags...)
	st, err := os.Stat(flat)
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	for _, percent := range []int64{10, 50, 90, 100} {
		r := newStockRig(t, time.Second)
		f, err := os.Open(flat)
		if err != nil {
			t.Fatal(err)
		}
		cut := (st.Size() - 16) * percent / 100
		if err := r.send(t, "vmcore-incomplete", io.LimitReader(f, cut)); err == nil {
			t.Error("the client was told that all is well")
		}
		_ = f.Close()
		e := r.sealed(t)
		t.Logf("%d%%: %s with %d of %d pages: %s", percent, e.Manifest.State, e.Manifest.Pages.Present, e.Manifest.Pages.Planned, e.Manifest.Reason)
		if e.Manifest.State != dumpdir.StatePartial || e.Manifest.Pages.Present <= last {
			t.Errorf("%s with %d pages, %d before", e.Manifest.State, e.Manifest.Pages.Present, last)
		}
		last = e.Manifest.Pages.Present
		r.checkSound(t, e)
		stored := filepath.Join(e.Path, dumpdir.VMCoreName)
		if got := judgesPages(t, stored); uint64(got.Count) != last {
			t.Errorf("libkdumpfile finds %d pages of %d", got.Count, last)
		}
		if percent == 100 { // only the end marker is missing
			if got, want := judgesPages(t, stored), judgesPages(t, plain); got != want {
				t.Errorf("pages %+v, want %+v", got, want)
			}
			judgesSame(t, judgesCrash(t, vmlinux, stored, "log", "bt -a"), judgesCrashOriginal(t, c, "log", "bt -a"))
		}
	}
}
