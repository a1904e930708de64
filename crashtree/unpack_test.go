package crashtree_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"github.com/corehaul/corehaul/crashtree"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// packers compress a file as a whole; bzip2 is a program, because Go has none.
var packers = map[string]func(w io.Writer) (io.WriteCloser, error){
	"gz":  func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	"lz4": func(w io.Writer) (io.WriteCloser, error) { return lz4.NewWriter(w), nil },
	"xz":  func(w io.Writer) (io.WriteCloser, error) { return xz.WriterConfig{DictCap: 64 << 20}.NewWriter(w) }, // xz -9
	"zst": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
}

func pack(t *testing.T, ext string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if ext == "bz2" {
		cmd := exec.CommandContext(t.Context(), "bzip2", "-c")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(b), &out
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	w, err := packers[ext](&out)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestPacked imports dumps that were compressed as a whole: each is the same dump as the file inside, and the second run changes nothing.
func TestPacked(t *testing.T) {
	for ext, row := range map[string][2]string{
		"gz": {elf, "gzip"}, "xz": {lzoFlat, "xz, flattened"}, "zst": {zlib, "zstd"},
		"lz4": {"makedumpfile-1.7.6-x86_64-raw.kdump", "lz4"}, "bz2": {"makedumpfile-1.7.6-x86_64.elf", "bzip2"},
	} {
		t.Run(ext, func(t *testing.T) {
			tr := newTree(t)
			tr.im.Scratch = t.TempDir()
			path := "a/vmcore." + ext
			tr.put(path, pack(t, ext, vmcoretest.Sample(t, row[0])))
			tr.put("b/notes."+ext, pack(t, ext, []byte("no dump")))
			first := tr.want(map[string][2]string{path: {"imported complete"}})[path]
			if e := tr.entry(first); tr.samePages(e, row[0]) == 0 || !strings.Contains(e.Manifest.Sender, row[1]) {
				t.Errorf("%+v", e.Manifest)
			}
			tr.sample("c/vmcore", row[0])
			for path, o := range tr.want(map[string][2]string{path: {"present complete"}, "c/vmcore": {"present complete"}}) {
				if o.Ref != first.Ref {
					t.Errorf("%s: %v, %v", path, o.Ref, first.Ref)
				}
			}
			if left, err := os.ReadDir(tr.im.Scratch); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// TestPackedDamaged imports compressed files that are not whole. What comes out before the fault is a partial dump, and an ELF core of which
// only the checksum is missing or wrong is not complete.
func TestPackedDamaged(t *testing.T) {
	tr := newTree(t)
	tr.im.Host = "n1"
	b := pack(t, "gz", vmcoretest.Sample(t, elf))
	flip := pack(t, "gz", vmcoretest.Sample(t, elf))
	flip[len(flip)-6] ^= 1
	tr.put("cut/vmcore.gz", b[:len(b)/2])
	tr.put("nosum/vmcore.gz", b[:len(b)-8])
	tr.put("sum/vmcore.gz", flip)
	tr.put("more/vmcore.gz", append(bytes.Clone(b), "more"...))
	tr.put("follows/vmcore.xz", append(pack(t, "xz", vmcoretest.Sample(t, "makedumpfile-1.7.6-x86_64.elf")), bytes.Repeat([]byte("x"), 1<<20)...))
	tr.put("garbage/vmcore.gz", append([]byte("\x1f\x8b\x08"), bytes.Repeat([]byte("x"), 8192)...))
	tr.put("log/vmcore.gz", append([]byte("\x1f\x8b\x08"), bytes.Repeat([]byte("y"), 8192)...))
	tr.put("log/vmcore-dmesg.txt", []byte(logText))
	tr.put("tar/dump.tar.gz", pack(t, "gz", bytes.Repeat([]byte("a file in an archive\n"), 10)))
	wide := pack(t, "xz", vmcoretest.Sample(t, lzoFlat))
	wide[bytes.IndexByte(wide[12:], 0x21)+14] = 32 // filter, size of its properties, dictionary: 256 MiB
	tr.put("wide/vmcore.xz", wide)
	tr.put("wide/other.xz", wide)
	for i, p := range pieces(3) {
		tr.put("split/vmcore"+string(rune('1'+i))+".gz", pack(t, "gz", p))
	}
	got := tr.want(map[string][2]string{
		"cut/vmcore.gz":     {"imported partial", "gzip stream: unexpected EOF"},
		"more/vmcore.gz":    {"imported partial", "gzip stream: "}, // these have the same pages
		"nosum/vmcore.gz":   {"present partial", "gzip stream: "},
		"sum/vmcore.gz":     {"present partial", "gzip stream: "},
		"follows/vmcore.xz": {"imported partial", "invalid header magic bytes"},
		"garbage/vmcore.gz": {"failed", "gzip stream: "},
		"log/vmcore.gz":     {"imported log-only", "gzip stream: "},
		"tar/dump.tar.gz":   {"failed", "not a vmcore"},
		"wide/vmcore.xz":    {"failed", "xz stream: it needs a dictionary of more than 128 MiB"},
		"wide/other.xz":     {"failed", "dictionary of more than 128 MiB"}, // nobody knows whether it is a dump
		"split/vmcore1.gz":  {"failed", "compressed piece of a --split set"},
		"split/vmcore2.gz":  {"failed", "compressed piece of a --split set"},
	})
	for path, o := range got {
		if path == "wide/vmcore.xz" || path == "wide/other.xz" {
			continue // not visited as a dump: the error is in a Skip
		}
		_, ok := errors.AsType[*crashtree.PackedError](o.Err)
		if want := strings.HasPrefix(path, "split/"); ok != want {
			t.Errorf("%s: %T", path, o.Err)
		}
	}
}

// TestUnpackNoRoom stops before the disk is full, and at the end of the context. Nothing is left.
func TestUnpackNoRoom(t *testing.T) {
	tr := newTree(t)
	tr.im.Host, tr.im.Scratch = "n1", t.TempDir()
	core := (&vmcoretest.Core{Notes: vmcoretest.VMCOREINFO(binary.LittleEndian, "PAGESIZE=4096\n"), Loads: []vmcoretest.Load{{Data: make([]byte, 8<<20)}}}).Bytes()
	path := tr.put("d/vmcore.gz", pack(t, "gz", core))
	tr.im.Room = admission.NewRoom(&full{tr.im.Store, 1<<30 + 1<<20}, admission.Limits{Reserve: 1 << 30}, nil)
	if o := tr.run(path)["d/vmcore.gz"]; o.Result != crashtree.Failed || !errors.Is(o.Err, syscall.ENOSPC) {
		t.Errorf("%+v", o)
	}
	tr.im.Room = admission.NewRoom(tr.im.Store, admission.Limits{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	im := tr.im
	im.Progress = func(string, uint64, uint64) { cancel() }
	if _, err := im.Import(ctx, crashtree.Found{Dir: filepath.Dir(path), Images: []string{"vmcore.gz"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	list, err := tr.im.Store.List(t.Context(), storage.Filter{})
	left, readErr := os.ReadDir(tr.im.Scratch)
	if err := errors.Join(err, readErr); err != nil || len(list)+len(left) != 0 {
		t.Errorf("%d dumps and %d files are left, %v", len(list), len(left), err)
	}
	tr.want(map[string][2]string{"d/vmcore.gz": {"imported complete"}})
}
