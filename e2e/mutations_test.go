package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

const (
	// mutations is how many changes each format gets.
	mutations = 300
	// Unless mutAll is set, one change of so many is imported, and sent over TLS, which takes several processes. No format has
	// a number of samples that these share a divisor with, so that changes of every sample come by.
	mutImportStep, mutSendStep = 3, 13
)

// mutAll has every command read every change (make mutations), which takes several times as long. Without it verify and export
// read every change, and one of mutReaders does.
var mutAll = os.Getenv("COREHAUL_MUTATIONS") == "all"

// mutReaders are the commands that only read a file.
var mutReaders = [][]string{
	{"corehaul", "log"},
	{"corehaul", "show"},
	{"corehaul", "report"},
	{"corehaul", "bt"},
	{"corehaul", "ps"},
	{"corehaul", "mods"},
	{"corehaul", "sys"},
	{"corehaul-send", "plan"},
}

// mutEvery returns every step-th case.
func mutEvery(cases []*mutCase, step int) []*mutCase {
	if mutAll {
		return cases
	}
	var some []*mutCase
	for i := 0; i < len(cases); i += step {
		some = append(some, cases[i])
	}
	return some
}

// mutFormat is a format, what files of it are changed, and how.
type mutFormat struct {
	name    string
	samples []string // of vmcoretest
	with    []mutator
}

const mutMade = "makedumpfile-1.7.6-x86_64"

// mutFormats are the formats in which dumps are read. Snappy, which no sample has, is written by the product.
var mutFormats = []mutFormat{
	{"elf", []string{mutMade + ".elf", "vmcore-6.1-x86_64-tiny.elf"}, mutPlain},
	{"kdump", []string{mutMade + "-zlib.kdump", mutMade + "-lzo.kdump", mutMade + "-zstd.kdump", mutMade + "-raw.kdump", "snappy"}, mutPlain},
	{"split", []string{mutMade + "-zstd-split1.kdump", mutMade + "-zstd-split2.kdump"}, mutPlain},
	{"flattened-kdump", []string{mutMade + "-lzo.flat"}, mutFlat},
	{"flattened-elf", []string{mutMade + "-elf.flat"}, mutFlat},
}

// mutCase is a changed file and what is known of it.
type mutCase struct {
	name string // format, seed, and what was done
	path string
	b    []byte
	base map[uint64]string // pages of the file before the change
	by   *mutPrograms      // read it
	mutTruth
}

// mutTruth is what a file holds.
type mutTruth struct {
	judged   bool              // libkdumpfile opens the file
	whole    bool              // nothing that it should have is missing
	pageSize int               // in bytes, if it was judged
	there    map[uint64]string // pages that can be read; if it was not judged, as far as known
	lost     map[uint64]bool   // pages that should be there and cannot be read
	odd      map[uint64]bool   // pages that may be refused, though libkdumpfile reads them
	cut      bool              // there is more than that, too much to be read
}

// TestMutations changes dumps of every format in ways that are always the same, and has every change read by both programs and by
// libkdumpfile: whatever is made of a file has the pages that libkdumpfile finds in it, or the file is refused in one line; and nothing is
// called complete of which a page is missing.
func TestMutations(t *testing.T) {
	t.Parallel()
	for _, f := range mutFormats {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			cases := f.cases(t)
			mutOffline(t, cases)
			mutImported(t, mutEvery(cases, mutImportStep), nil)
			mutSent(t, mutEvery(cases, mutSendStep))
		})
	}
}

// mutSample returns a file of vmcoretest, or one that the product makes of it.
func mutSample(t *testing.T, name string) []byte {
	t.Helper()
	if name != "snappy" {
		return vmcoretest.Sample(t, name)
	}
	in := stockFile(t, "raw", string(vmcoretest.Sample(t, mutMade+"-raw.kdump")))
	out := filepath.Join(t.TempDir(), "snappy")
	judgesRun(t, 0, "corehaul", "export", in, "--compress", name, "-o", out)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cases makes the changed files and has them judged.
func (f *mutFormat) cases(t *testing.T) []*mutCase {
	t.Helper()
	dir := t.TempDir()
	var files [][]byte
	for _, name := range f.samples {
		files = append(files, mutSample(t, name))
	}
	bases := mutRead(t, files, nil)
	by := newMutPrograms(t)
	var cases []*mutCase
	var changed [][]byte
	for n := range mutations {
		i := n % len(files)
		b, what := mutate(f.name, n, files[i], f.with)
		if len(bases[i].there) == 0 && f.name != "split" {
			t.Fatalf("no page of %s can be read", f.samples[i])
		}
		if !bases[i].whole && f.name != "split" {
			t.Fatalf("%s is not whole", f.samples[i])
		}
		c := &mutCase{name: what, path: filepath.Join(dir, fmt.Sprint(n)), b: b, base: bases[i].there, by: by}
		if err := os.WriteFile(c.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		cases, changed = append(cases, c), append(changed, b)
	}
	for i, truth := range mutRead(t, changed, files) {
		cases[i].mutTruth = truth
	}
	return cases
}

// mutRead has files judged. libkdumpfile refuses some for what a header or a note says: then the pages are read below the headers of the
// file as it was before the change, which is bases[i%len(bases)], if there is one.
func mutRead(t *testing.T, files, bases [][]byte) []mutTruth {
	t.Helper()
	opened := make([]*mutFile, len(files))
	for i, b := range files {
		opened[i] = mutOpen(b)
	}
	truths := mutJudge(t, opened)
	var again []*mutFile
	var of []int
	for i := range truths {
		k, ok := opened[i].kdump()
		otherwise := ok && truths[i].judged && int64(truths[i].pageSize) != k.block // it took the header for one of 32 bits
		if truths[i].judged && !otherwise || len(bases) == 0 {
			continue
		}
		truths[i].judged = false
		if f := opened[i].under(mutOpen(bases[i%len(bases)])); f != nil {
			again, of = append(again, f), append(of, i)
		}
	}
	for i, truth := range mutJudge(t, again) {
		truth.judged = false
		truths[of[i]] = truth
	}
	return truths
}

// mutJudge has libkdumpfile 0.5.1 read files, with room behind them: it maps files, and a descriptor that points behind the end would
// kill it.
func mutJudge(t *testing.T, files []*mutFile) []mutTruth {
	t.Helper()
	if len(files) == 0 {
		return nil
	}
	dir := t.TempDir()
	paths, truths := make([]string, len(files)), make([]mutTruth, len(files))
	for i, f := range files {
		paths[i] = filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(paths[i], f.b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(paths[i], int64(len(f.b))+mutLimit); err != nil {
			t.Fatal(err)
		}
	}
	answers, err := lab.ReadEachPage(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	for i := range answers {
		truths[i] = mutTruthOf(files[i], &answers[i])
	}
	return truths
}

// mutTruthOf corrects what libkdumpfile says by what it does not know: which bytes are there at all.
func mutTruthOf(f *mutFile, seen *lab.PagesOf) mutTruth {
	t := mutTruth{judged: seen.Refused == "", whole: f.whole, pageSize: seen.PageSize, there: map[uint64]string{}, lost: map[uint64]bool{}, odd: map[uint64]bool{}, cut: f.cut || seen.Cut}
	for pfn, sum := range seen.Pages {
		if sum == nil {
			t.lost[pfn] = true
		} else {
			t.there[pfn] = *sum
		}
	}
	lose := func(pfn uint64) {
		delete(t.there, pfn)
		t.lost[pfn] = true
	}
	if loads, ok := f.loads(); ok {
		for pfn := range seen.Pages {
			for _, l := range loads {
				if size := uint64(seen.PageSize); !l.came(f, pfn*size, size) {
					lose(pfn)
				}
			}
		}
		for _, l := range loads {
			t.whole = t.whole && l.came(f, l.paddr, l.filesz)
		}
	} else if k, ok := f.kdump(); ok {
		t.whole = t.whole && k.front() && !k.split
		end := k.descs
		k.pages(func(_ uint64, desc int64) { end = desc + 24 })
		k.pages(func(pfn uint64, desc int64) {
			came, odd := k.desc(desc, end)
			if !came {
				lose(pfn)
			}
			t.odd[pfn] = odd
			t.whole = t.whole && k.f.has(desc, 24)
		})
	} else if bytes.HasPrefix(f.b, []byte("\x7fELF")) {
		t.whole = false
	}
	t.whole = t.whole && len(t.lost) == 0
	return t
}

// run runs one of our programs and returns its exit code. Whatever the input is, it ends in time, in bounded memory, with a
// documented code, and a failure is one line.
func (c *mutCase) run(t *testing.T, name string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	code, stdout, stderr = c.by.run(t, name, args)
	said := strings.SplitAfter(stderr, "\n")
	said = slices.DeleteFunc(said, func(l string) bool {
		return l == "" || strings.HasPrefix(l, "hint: ") || strings.Contains(l, ": warning: ")
	})
	switch {
	case !slices.Contains([]int{0, 1, 3, 4, 5}, code):
		t.Errorf("%s\n%s %v: exit code %d\n%s", c.name, name, args, code, stderr)
	case code == 1 && name == "corehaul" && len(said) != 1:
		t.Errorf("%s\n%s %v: a failure of %d lines:\n%s", c.name, name, args, len(said), stderr)
	case strings.Contains(stdout+stderr, "internal error"):
		t.Errorf("%s\n%s %v: a panic was caught:\n%s%s", c.name, name, args, stdout, stderr)
	}
	return code, stdout, stderr
}

// claim checks a state that something reports of the file.
func (c *mutCase) claim(t *testing.T, who string, complete bool) {
	t.Helper()
	if complete && !c.whole {
		t.Errorf("%s\n%s says complete; %d pages are lost (%v), %d are there, judged: %v", c.name, who, len(c.lost), mutKeys(c.lost), len(c.there), c.judged)
	}
}

// pages checks what something made of the file, as libkdumpfile reads it. An ELF core may have zeros for pages that were left out of the
// dump on purpose, as makedumpfile's have. What is not said to be complete may lack a page that libkdumpfile reads as another one than it was: one
// of both is more careful.
func (c *mutCase) pages(t *testing.T, who string, got *mutTruth, complete, elf bool) {
	t.Helper()
	if got.cut || c.cut {
		return
	}
	for pfn, sum := range got.there {
		switch w, ok := c.there[pfn]; {
		case ok && w == sum, !ok && elf && !c.lost[pfn] && sum == mutZero, c.base[pfn] == sum && !c.lost[pfn]:
		case c.lost[pfn]:
			t.Errorf("%s\n%s has invented page %d, which is lost", c.name, who, pfn)
			return
		case c.judged || len(c.there) > 0:
			t.Errorf("%s\n%s has page %d as %s, want %q (judged: %v)", c.name, who, pfn, sum, w, c.judged)
			return
		}
	}
	if len(got.lost) > 0 {
		t.Errorf("%s\n%s has pages that cannot be read: %v", c.name, who, mutKeys(got.lost))
	}
	for pfn := range c.there {
		if got.there[pfn] == "" && c.judged && (complete || c.base[pfn] == c.there[pfn] && !c.odd[pfn]) {
			t.Errorf("%s\n%s lacks page %d (it has %d, libkdumpfile finds %d)", c.name, who, pfn, len(got.there), len(c.there))
			return
		}
	}
}

// mutZero is the digest of a page of zeros.
const mutZero = "ad7facb2586fc6e9"

func mutKeys(m map[uint64]bool) []uint64 {
	var keys []uint64
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys[:min(len(keys), 8)]
}

// mutExports are the ways to export; they take turns.
var mutExports = [][]string{
	{"--format", "kdump"},
	{"--format", "elf"},
	{"--format", "kdump", "--compress", "zlib"},
	{"--format", "flattened"},
	{"--format", "kdump", "--compress", "none"},
	{"--format", "elf"},
	{"--format", "flattened", "--compress", "zstd"},
}

// mutOffline reads the files with the commands that need no receiver.
func mutOffline(t *testing.T, cases []*mutCase) {
	t.Helper()
	var made [][]byte
	var of []int
	var whole []bool
	for i, c := range cases {
		code, out, _ := c.run(t, "corehaul", "verify", "--json", c.path)
		c.claim(t, "verify", code == 0)
		var report struct {
			State    string
			Progress struct{ Planned, Present int }
		}
		if code != 1 {
			if err := json.Unmarshal([]byte(out), &report); err != nil {
				t.Errorf("%s\nverify says %q: %v", c.name, out, err)
			}
		}
		if p := report.Progress; code == 0 && c.judged && !c.cut && (report.State != "complete" || p.Planned != len(c.there) || p.Present != len(c.there)) {
			t.Errorf("%s\nverify says %+v; libkdumpfile reads %d pages", c.name, report, len(c.there))
		}
		mutReadOnly(t, i, c)
		if b, code := c.export(t, mutExports[i%len(mutExports)]); b != nil {
			made, of, whole = append(made, b), append(of, i), append(whole, code == 0)
		}
	}
	t.Logf("%d of %d were exported", len(made), len(cases))
	for i, got := range mutRead(t, made, nil) {
		how := mutExports[of[i]%len(mutExports)]
		cases[of[i]].pages(t, fmt.Sprintf("export %v", how), &got, whole[i], how[1] == "elf")
	}
}

// mutReadOnly reads the n-th file with all of mutReaders, or with one of them.
func mutReadOnly(t *testing.T, n int, c *mutCase) {
	t.Helper()
	for i, reader := range mutReaders {
		if mutAll || n%len(mutReaders) == i {
			c.run(t, reader[0], reader[1], c.path)
		}
	}
}

// export exports a file and returns what comes of it, nil if nothing does.
func (c *mutCase) export(t *testing.T, how []string) (made []byte, code int) {
	t.Helper()
	out := c.path + ".out"
	code, _, said := c.run(t, "corehaul", slices.Concat([]string{"export", c.path, "-o", out}, how)...)
	c.claim(t, fmt.Sprintf("export %v", how), code == 0)
	b, err := os.ReadFile(out)
	if errors.Is(err, os.ErrNotExist) {
		if code != 1 && code != 5 {
			t.Errorf("%s\nexport %v: exit code %d, and nothing was written\n%s", c.name, how, code, said)
		}
		return nil, code
	}
	if err != nil {
		t.Fatal(err)
	}
	if code == 3 || code == 5 {
		if again, _, _ := c.run(t, "corehaul", "verify", out); again == 0 {
			t.Errorf("%s\nexport %v: exit code %d, but what it wrote counts as complete", c.name, how, code)
		}
	}
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	return b, code
}

// mutPack are what streams come in.
var mutPack = map[string]func(b []byte) ([]byte, error){
	"gzip": func(b []byte) ([]byte, error) {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, err := w.Write(b)
		err = errors.Join(err, w.Close())
		return out.Bytes(), err
	},
	"xz": func(b []byte) ([]byte, error) {
		var out bytes.Buffer
		w, err := xz.NewWriter(&out)
		if err != nil {
			return nil, err
		}
		_, err = w.Write(b)
		err = errors.Join(err, w.Close())
		return out.Bytes(), err
	},
}
