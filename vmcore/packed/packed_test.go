package packed_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"github.com/corehaul/corehaul/vmcore/packed"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

const sample = "makedumpfile-1.7.6-x86_64-lzo.flat"

// writers has a compressor of each form; bzip2 is a program, because Go has none.
var writers = map[packed.Form]func(w io.Writer) (io.WriteCloser, error){
	packed.Gzip: func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	packed.LZ4:  func(w io.Writer) (io.WriteCloser, error) { return lz4.NewWriter(w), nil },
	packed.XZ:   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	packed.Zstd: func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
}

func pack(tb testing.TB, form packed.Form, b []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	if form == packed.Bzip2 {
		cmd := exec.CommandContext(tb.Context(), "bzip2", "-c")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(b), &out
		if err := cmd.Run(); err != nil {
			tb.Fatal(err)
		}
		return out.Bytes()
	}
	w, err := writers[form](&out)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func unpack(b []byte, maxDict int64) ([]byte, error) {
	r, err := packed.NewReader(packed.FormOf(b), bytes.NewReader(b), maxDict)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, 64<<20))
}

// TestForms reads what each compressor wrote, and notices every end that comes early and a flipped byte.
func TestForms(t *testing.T) {
	want := vmcoretest.Sample(t, sample)
	for _, form := range []packed.Form{packed.Bzip2, packed.Gzip, packed.LZ4, packed.XZ, packed.Zstd} {
		b := pack(t, form, want)
		if got, err := unpack(b, 16<<20); err != nil || !bytes.Equal(got, want) || packed.FormOf(b[:packed.HeadLen]) != form {
			t.Errorf("%s: %d of %d bytes, %v", form, len(got), len(want), err)
		}
		for _, n := range []int{packed.HeadLen, len(b) / 2, len(b) - 1} {
			if got, err := unpack(b[:n], 16<<20); err == nil || !bytes.HasPrefix(want, got) {
				t.Errorf("%s cut at %d of %d: %d bytes without an error", form, n, len(b), len(got))
			}
		}
		b[len(b)/2] ^= 1
		if got, err := unpack(b, 16<<20); err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s: a flipped byte goes unnoticed", form)
		}
	}
	if packed.FormOf(want) != packed.Plain {
		t.Error("a flattened file is compressed")
	}
}

// TestConcatenated reads files of several streams, as pigz, pxz and cat make them, to their end; of xz also with padding between them.
func TestConcatenated(t *testing.T) {
	want := vmcoretest.Sample(t, sample)
	half := len(want) / 2
	for _, form := range []packed.Form{packed.Bzip2, packed.Gzip, packed.LZ4, packed.XZ, packed.Zstd} {
		first, second := pack(t, form, want[:half]), pack(t, form, want[half:])
		for _, padding := range []string{"", "\x00\x00\x00\x00\x00\x00\x00\x00"} {
			if padding != "" && form != packed.XZ {
				continue
			}
			b := slices.Concat(first, []byte(padding), second)
			if got, err := unpack(b, 16<<20); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %d bytes between: %d of %d bytes, %v", form, len(padding), len(got), len(want), err)
			}
			if got, err := unpack(b[:len(b)-1], 16<<20); err == nil {
				t.Errorf("%s: a cut second stream: %d bytes without an error", form, len(got))
			}
			if form != packed.XZ {
				continue
			}
			at := len(first) + len(padding) + 12
			b[at+bytes.IndexByte(b[at:], 0x21)+2] = 40
			if got, err := unpack(b, 16<<20); !errors.Is(err, packed.ErrUnsupported) || len(got) > half {
				t.Errorf("the dictionary of the second stream: %d bytes, %v", len(got), err)
			}
		}
	}
}

// TestManyBlocks refuses an xz stream of ever more blocks, of which the decoder would keep a list.
func TestManyBlocks(t *testing.T) {
	stream := pack(t, packed.XZ, []byte("x"))
	size := (int(stream[12]) + 1) * 4
	block := slices.Concat(stream[12:12+size], make([]byte, 4), make([]byte, 8)) // the end of no data, padding, and the CRC-64
	if stream[7] != 4 {
		t.Fatalf("the check of the stream is %d", stream[7])
	}
	dict := bytes.IndexByte(block, 0x21) + 2
	block[dict] = 0 // 4 KiB
	n, err := io.Copy(io.Discard, packed.NewXZGuard(io.MultiReader(bytes.NewReader(stream[:12]), &endless{b: block}), 16<<20))
	if !errors.Is(err, packed.ErrUnsupported) || !strings.Contains(err.Error(), "blocks") || n > 64<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestManyDictionaries refuses an xz stream that makes the decoder zero a dictionary for each few bytes, and passes one whose blocks have
// 1 MiB each.
func TestManyDictionaries(t *testing.T) {
	stream := pack(t, packed.XZ, []byte("x"))
	size := (int(stream[12]) + 1) * 4
	block := slices.Concat(stream[12:12+size], make([]byte, 4), make([]byte, 8))
	n, err := io.Copy(io.Discard, packed.NewXZGuard(io.MultiReader(bytes.NewReader(stream[:12]), &endless{b: block}), 128<<20))
	if !errors.Is(err, packed.ErrUnsupported) || !strings.Contains(err.Error(), "dictionaries") || n > 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	block = slices.Clone(block[:size])
	block[bytes.IndexByte(block, 0x21)+2] = 28 // 64 MiB
	for range 16 {
		block = append(append(block, 1, 0xff, 0xff), make([]byte, 64<<10)...) // a chunk that is not compressed
	}
	block = append(block, 0)
	block = append(block, make([]byte, (4-len(block)%4)%4+8)...)
	whole := io.LimitReader(&endless{b: block}, 1000*int64(len(block)))
	if n, err := io.Copy(io.Discard, packed.NewXZGuard(io.MultiReader(bytes.NewReader(stream[:12]), whole), 128<<20)); err != nil {
		t.Errorf("1000 blocks of 1 MiB: %d bytes, %v", n, err)
	}
}

// endless repeats some bytes.
type endless struct {
	b  []byte
	at int
}

func (e *endless) Read(p []byte) (n int, err error) {
	n = copy(p, e.b[e.at:])
	e.at = (e.at + n) % len(e.b)
	return n, nil
}

// TestDictionary refuses a dictionary beyond the limit before it takes the memory, in the first block of an xz stream and in zstd.
func TestDictionary(t *testing.T) {
	want := vmcoretest.Sample(t, sample)
	b := pack(t, packed.XZ, want)
	b[bytes.IndexByte(b[12:], 0x21)+14] = 40 // filter, size of its properties, dictionary
	_, err := unpack(b, 16<<20)
	if wide, ok := errors.AsType[*packed.DictError](err); !ok || !strings.Contains(wide.Error(), "dictionary of more than 16 MiB") {
		t.Errorf("xz: %v", err)
	}
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithWindowSize(64<<20), zstd.WithSingleSegment(false))
	if err == nil {
		_, err = w.Write(want)
	}
	if err := errors.Join(err, w.Flush()); err != nil {
		t.Fatal(err)
	}
	_, err = unpack(out.Bytes(), 16<<20)
	if wide, ok := errors.AsType[*packed.DictError](err); !ok || !strings.Contains(wide.Error(), "window of more than 16 MiB") {
		t.Errorf("zstd: %v", err)
	}
}

func FuzzReader(f *testing.F) {
	b := vmcoretest.Sample(f, sample)
	for _, form := range []packed.Form{packed.Bzip2, packed.Gzip, packed.LZ4, packed.XZ, packed.Zstd} {
		p := pack(f, form, b[:min(len(b), 20000)])
		f.Add(p)
		f.Add(p[:len(p)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if packed.FormOf(b) == packed.Plain {
			return
		}
		if _, err := unpack(b, 1<<20); err != nil && strings.Contains(err.Error(), "internal error") {
			t.Fatal(err)
		}
	})
}
