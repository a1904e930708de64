package kdumpclients

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/elfcore"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// wantKeptBytes checks what is kept beside a dump.
func wantKeptBytes(t *testing.T, e storage.Entry, name string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(e.Path, "files", name)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is kept as %d bytes, want %d: %v", name, len(got), len(want), err)
	}
}

// TestOtherELF sends ELF files that are no dump of a kernel beside one, and alone: they make no dump, and are kept as they are.
func TestOtherELF(t *testing.T) {
	load := []vmcoretest.Load{{Paddr: 0, Data: bytes.Repeat([]byte("text"), 1<<14)}}
	vmlinux := (&vmcoretest.Core{Type: 2, Loads: load}).Bytes()
	process := (&vmcoretest.Core{Notes: vmcoretest.Note(binary.LittleEndian, "CORE", 6, make([]byte, 64)), Loads: load}).Bytes()
	// gcore has its notes at the end of the file.
	late := append(bytes.Clone(process), make([]byte, 2<<20)...)
	notes := binary.LittleEndian.Uint64(process[64+8:])
	binary.LittleEndian.PutUint64(late[64+8:], uint64(len(late)))
	late = append(late, process[notes:notes+binary.LittleEndian.Uint64(process[64+32:])]...)
	files := map[string][]byte{
		"vmlinux-6.1": vmlinux, "vmlinux-6.1.gz": pack(t, vmlinux, wraps["gzip"]), "core.1234": process, "core.late": late, "core.zst": pack(t, process, wraps["zstd"]),
	}
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	for name, extra := range files {
		for _, before := range []bool{false, true} {
			small := len(vmlinux) / 2 // they may be larger than files of unknown kind
			if name == "core.late" {
				small = elfcore.HeadLen + 5000
			}
			s := openSmall(t, t.TempDir(), int64(small))
			tr := treeOf(t, s, "n1")
			if err := tr.MkdirAll(crash); err != nil {
				t.Fatal(err)
			}
			sendIt := func() {
				if err := put(t, tr, crash+"/"+name, extra, 5000).Close(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if before {
				sendIt()
				drain(t, s)
			}
			redhat(t, tr, b)
			drain(t, s)
			if !before {
				sendIt()
			}
			settle(t, s)
			e := only(t, s)
			if e.Manifest.State != dumpdir.StateComplete || e.Manifest.Bytes.Log != int64(len(logText)) {
				t.Errorf("%s: %+v", name, e.Manifest)
			}
			wantKeptBytes(t, e, name, extra)
			wantStaged(t, s, "n1")
		}
		s := open(t, t.TempDir())
		tr := treeOf(t, s, "n1")
		send(t, tr, "/dmesg", logText)
		if err := put(t, tr, "/"+name, extra, 5000).Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		settle(t, s)
		e := only(t, s)
		if m := e.Manifest; m.State != dumpdir.StateLogOnly || !strings.Contains(m.Reason, "sent no vmcore") {
			t.Errorf("%s alone: %+v", name, m)
		}
		wantKeptBytes(t, e, name, extra)
	}
}

// TestStrangeFiles sends dumps in forms that cannot be read. The client hears of it, and so does who looks at the dump, beside which all
// bytes are kept.
func TestStrangeFiles(t *testing.T) {
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	flip := func(packed []byte, at int) []byte {
		packed[at] ^= 1
		return packed
	}
	wide := func(w io.Writer) (io.WriteCloser, error) { return xz.WriterConfig{DictCap: 64 << 20}.NewWriter(w) } // xz -9
	long := bytes.NewBuffer(nil)
	if w, err := zstd.NewWriter(long, zstd.WithWindowSize(128<<20)); err != nil {
		t.Fatal(err)
	} else if _, err = w.Write(b); errors.Join(err, w.Flush(), w.Close()) != nil { // a frame that knows its length has that window
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		sent []byte
		want string
	}{
		"bzip2, damaged": {flip(pack(t, b, wraps["bzip2"]), 4), "bzip2 stream: "},
		"gzip, damaged":  {flip(pack(t, b, wraps["gzip"]), 2), "gzip stream: "},
		"lz4, damaged":   {flip(pack(t, b, wraps["lz4"]), 5), "lz4 stream: "},
		"zstd, damaged":  {flip(pack(t, b, wraps["zstd"]), 4), "zstd stream: "},
		"xz -9":          {pack(t, b, wide), "dictionary of more than 16 MiB; compress with xz -6"},
		"zstd --ultra":   {long.Bytes(), "window of more than 16 MiB; compress with zstd -19"},
		"unknown":        {append([]byte("LRZI\x00\x06"), b...), "in no format that is known for a dump"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openSmall(t, t.TempDir(), int64(len(row.sent))/2)
			if name == "unknown" {
				s.cfg.small = maxSmall
			}
			tr := treeOf(t, s, "n1")
			if err := tr.MkdirAll(crash); err != nil {
				t.Fatal(err)
			}
			send(t, tr, crash+"/dmesg.202611250800", logText)
			err := put(t, tr, crash+"/dump-incomplete", row.sent, 700).Close()
			if strange, ok := errors.AsType[*StrangeFileError](err); !ok || !strings.Contains(strange.Error(), row.want) {
				t.Errorf("the client is told %q, want %q", err, row.want)
			}
			settle(t, s)
			e := only(t, s)
			if m := e.Manifest; m.State != dumpdir.StateLogOnly || !strings.Contains(m.Reason, row.want) || !strings.Contains(m.Reason, "dump-incomplete") {
				t.Errorf("%+v", m)
			}
			wantKeptBytes(t, e, "dump", row.sent)
		})
	}
}

// TestSmallFilesBesideDump sends a checksum under a name like that of the dump. The client hears of no error, and the file is kept.
func TestSmallFilesBesideDump(t *testing.T) {
	_, b := sample(t, "makedumpfile-1.7.6-x86_64-lzo.flat")
	s := open(t, t.TempDir())
	tr := treeOf(t, s, "n1")
	redhat(t, tr, b)
	sum := []byte(strings.Repeat("0123456789abcdef", 4) + "  vmcore.flat\n")
	if err := put(t, tr, crash+"/vmcore.flat.sha256", sum, len(sum)).Close(); err != nil {
		t.Error(err)
	}
	settle(t, s)
	e := only(t, s)
	if e.Manifest.State != dumpdir.StateComplete {
		t.Errorf("%+v", e.Manifest)
	}
	wantKeptBytes(t, e, "vmcore.flat.sha256", sum)
}
