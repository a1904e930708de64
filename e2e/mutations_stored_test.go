package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ulikunitz/xz"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/receiver/kdumpclients"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// mutDump is a dump that a receiver made of a case.
type mutDump struct {
	c     *mutCase
	who   string
	state string
	told  bool // the client was told that all is well
	dir   string
}

// mutStored checks dumps that were stored.
func mutStored(t *testing.T, dumps []mutDump) {
	t.Helper()
	var files [][]byte
	var of []mutDump
	for _, d := range dumps {
		d.c.claim(t, d.who, d.state == string(dumpdir.StateComplete))
		b, err := os.ReadFile(filepath.Join(d.dir, dumpdir.VMCoreName))
		if err == nil {
			files, of = append(files, b), append(of, d)
		} else if kept, _ := filepath.Glob(filepath.Join(d.dir, "files", "*")); len(kept) == 0 && d.told && d.c.judged && len(d.c.there) > 0 {
			t.Errorf("%s\n%s stored no page and did not keep the stream; libkdumpfile reads %d pages", d.c.name, d.who, len(d.c.there))
		}
	}
	for i, got := range mutRead(t, files, nil) {
		d := of[i]
		if kept, _ := filepath.Glob(filepath.Join(d.dir, "files", "*")); len(kept) > 0 { // nothing is lost of what was not understood
			some := *d.c
			some.judged = false
			d.c = &some
		}
		d.c.pages(t, d.who, &got, d.state == string(dumpdir.StateComplete), false)
	}
	t.Logf("%d of %d were stored with pages", len(files), len(dumps))
}

// mutNoSpace is how a receiver refuses a plan that its disk has no room for.
var mutNoSpace = regexp.MustCompile(`no-space.* needs at least `)

// mutSent has the files sent to a receiver over TLS.
func mutSent(t *testing.T, cases []*mutCase) {
	t.Helper()
	s := judgesServe(t)
	var dumps []mutDump
	kept := t.TempDir()
	for i, c := range cases {
		code, _, said := c.run(t, "corehaul-send", "send", "--to", s.target, "--identity", s.identity, "--level", "0", "--patience", "5s", "--progress", "0", c.path)
		list := s.list(t)
		if len(list) > 1 || len(list) == 0 && code != 1 {
			t.Errorf("%s\nsend: exit code %d and %d dumps", c.name, code, len(list))
		}
		for _, d := range list {
			// With no page to send, the log is stored and the sender fails. A plan of more than the disk has room for is refused
			// with what it needs; the log stays, in a dump that waits for its sender.
			want := map[int]string{0: "complete", 1: "log-only", 3: "partial"}[code]
			if code == 1 && mutNoSpace.MatchString(said) {
				want = "arriving"
			}
			if d.Manifest.State != want {
				t.Errorf("%s\nsend: exit code %d, stored as %s, want %s\n%s", c.name, code, d.Manifest.State, want, said)
			}
			dir := filepath.Join(kept, fmt.Sprint(i))
			mutCopy(t, dir, d.Path)
			dumps = append(dumps, mutDump{c, "send", d.Manifest.State, code == 0, dir})
			judgesRun(t, 0, "corehaul", "rm", "-f", d.ID, "--data", s.data)
		}
	}
	mutStored(t, dumps)
}

// mutImported sends the files, or streams in which they are packed, as a stock client does.
func mutImported(t *testing.T, cases []*mutCase, streams [][]byte) {
	t.Helper()
	r := newStockRig(t, time.Millisecond)
	by := map[string]*mutCase{}
	told := map[string]bool{} // hosts whose client was told that all is well
	for i, c := range cases {
		host := fmt.Sprintf("m%d", i)
		tree, err := r.svc.Tree(kdumpclients.Peer{Host: host, Addr: "192.0.2.1:22"})
		if err != nil {
			t.Fatal(err)
		}
		u, err := tree.Create("vmcore")
		if err != nil {
			t.Fatal(err)
		}
		b := c.b
		if streams != nil {
			b = streams[i]
		}
		_, err = u.WriteAt(b, 0)
		told[host] = u.Close() == nil && err == nil
		by[host] = c
	}
	var dumps []mutDump
	for _, e := range r.sealedAll(t, by) {
		c := by[e.Host]
		if state := e.Manifest.State; state == dumpdir.StateComplete && !told[e.Host] {
			t.Errorf("%s\nimport: complete, but the client heard of an error", c.name)
		}
		dumps = append(dumps, mutDump{c, "import", string(e.Manifest.State), told[e.Host], e.Path})
	}
	mutStored(t, dumps)
}

// sealedAll lets the service work until the dump of every host is sealed. When the time of the whole test is up, it names those that are not.
func (r *stockRig) sealedAll(t *testing.T, by map[string]*mutCase) []storage.Entry {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.svc.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for {
		list, err := r.store.List(ctx, storage.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		open := maps.Clone(by)
		for _, e := range list {
			if e.Manifest.State != dumpdir.StateArriving {
				delete(open, e.Host)
			}
		}
		if len(open) == 0 {
			return list
		}
		if end, ok := t.Deadline(); ok && time.Until(end) < 20*time.Second {
			for _, c := range open {
				t.Errorf("%s\nimport: no dump is sealed", c.name)
			}
			t.FailNow()
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// mutUnpack is what comes out of a packed stream before the first error.
func mutUnpack(kind string, b []byte) []byte {
	var in io.Reader
	var err error
	if kind == "xz" {
		in, err = xz.NewReader(bytes.NewReader(b))
	} else {
		in, err = gzip.NewReader(bytes.NewReader(b))
	}
	if err != nil {
		return nil
	}
	out, _ := io.ReadAll(io.LimitReader(in, mutLimit)) // as far as it goes
	return out
}

// TestMutationsPacked changes compressed streams: what a stock client's compressor wrote and the line or the disk damaged.
func TestMutationsPacked(t *testing.T) {
	t.Parallel()
	flat := vmcoretest.Sample(t, mutMade+"-lzo.flat")
	for kind, pack := range mutPack {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			packed, err := pack(flat)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(mutUnpack(kind, packed), flat) {
				t.Fatal("what was packed is not what comes out")
			}
			mutPacked(t, kind, packed, flat)
		})
	}
}

func mutPacked(t *testing.T, kind string, packed, flat []byte) {
	t.Helper()
	with := []mutator{mutFlip, mutFlip, mutTruncate, mutOverwrite, mutAppend}
	var cases []*mutCase
	var streams, unpacked [][]byte
	for n := range mutations / len(mutPack) {
		b, what := mutate(kind, n, packed, with)
		out := mutUnpack(kind, b)
		cases = append(cases, &mutCase{name: what})
		streams, unpacked = append(streams, b), append(unpacked, out)
	}
	base := mutRead(t, [][]byte{flat}, nil)[0].there
	for i, truth := range mutRead(t, unpacked, [][]byte{flat}) {
		c := cases[i]
		c.mutTruth, c.base = truth, base
		c.whole = bytes.HasPrefix(unpacked[i], flat) // a checksum behind that may be wrong
		c.judged = false                             // how much comes out before an error is seen is up to the decoder
		c.lost = map[uint64]bool{}
	}
	mutImported(t, cases, streams)
}

// TestMutationsDumpDirectory changes the files of a sealed dump: every change is damage, which verify says by the path of the vmcore, and no
// export has a page that is not as it was sent.
func TestMutationsDumpDirectory(t *testing.T) {
	t.Parallel()
	sample := vmcoretest.Sample(t, mutMade+"-zlib.kdump")
	from := judgesServe(t).send(t, stockFile(t, "sample", string(sample)), "0")
	base := mutRead(t, [][]byte{sample}, nil)[0]
	var made [][]byte
	var of []*mutCase
	dir, by := t.TempDir(), newMutPrograms(t)
	for n := range mutations {
		c := mutDirectory(t, n, from, filepath.Join(dir, fmt.Sprint(n)))
		c.by = by
		c.mutTruth = base
		c.whole = mutSums(t, filepath.Dir(c.path))
		c.judged = c.whole // else pages may be lost
		code, _, _ := c.run(t, "corehaul", "verify", c.path)
		if want := map[bool]int{true: 0, false: 5}[c.whole]; code != want {
			t.Errorf("%s\nverify: exit code %d, want %d", c.name, code, want)
		}
		mutReadOnly(t, n, c)
		c.whole = true // the journal has what a page has to be: an export is complete whenever all of them are
		if b, code := c.export(t, []string{"--format", []string{"kdump", "flattened"}[n%2]}); b != nil {
			c.whole = code == 0
			c.judged = c.whole
			made, of = append(made, b), append(of, c)
		}
	}
	t.Logf("%d of %d were exported", len(made), mutations)
	for i, got := range mutRead(t, made, nil) {
		of[i].pages(t, "export", &got, of[i].whole, false)
	}
}

// mutCopy copies the files of a sealed dump, but not its report: the receiver may be making that just now.
func mutCopy(t *testing.T, to, from string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "report.json"):
			continue
		case e.IsDir():
			err = os.CopyFS(dst, os.DirFS(src))
		default:
			var b []byte
			if b, err = os.ReadFile(src); err == nil {
				err = os.WriteFile(dst, b, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// mutDirectory copies a dump directory and changes one file in it.
func mutDirectory(t *testing.T, n int, from, to string) *mutCase {
	t.Helper()
	mutCopy(t, to, from)
	r := mutSeed("directory", n)
	names := []string{"vmcore", "vmcore", "vmcore", "chunks", "chunks", "manifest.json", "SHA256SUMS", "vmcore-dmesg.txt"}
	name := names[r.IntN(len(names))]
	c := &mutCase{path: filepath.Join(to, "vmcore")}
	if what := r.IntN(10); what == 0 && name != "vmcore" {
		c.name = fmt.Sprintf("directory, seed %d: without %s", n, name)
		if err := os.Remove(filepath.Join(to, name)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	b, err := os.ReadFile(filepath.Join(to, name))
	if err != nil {
		t.Fatal(err)
	}
	b, c.name = mutDirectoryFile(r, b)
	c.name = fmt.Sprintf("directory, seed %d: %s: %s", n, name, c.name)
	if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func mutDirectoryFile(r *rand.Rand, b []byte) ([]byte, string) {
	if len(b) == 0 {
		return mutAppend(r, b)
	}
	with := []mutator{mutFlip, mutFlip, mutOverwrite, mutTruncate, mutAppend, mutTable}
	return with[r.IntN(len(with))](r, b)
}

// mutSums is sha256sum -c --strict, and wants the files of a dump to be listed.
func mutSums(t *testing.T, dir string) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		return false
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		want, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		b, err := os.ReadFile(filepath.Join(dir, name))
		sum := sha256.Sum256(b)
		if !ok || err != nil || !strings.EqualFold(want, hex.EncodeToString(sum[:])) {
			return false
		}
		listed[name] = true
	}
	return listed["vmcore"] && listed["vmcore-dmesg.txt"] && listed["chunks"] && listed["manifest.json"]
}
