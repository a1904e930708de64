package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/cmd/internal/clitest"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/stores"
	"github.com/corehaul/corehaul/triage/cage"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == cage.ChildCommand { // of a server in a test
		hold()
		os.Exit(cage.Child(os.Args[2:]))
	}
	if file := os.Getenv("TEST_SERVE_FILE"); file != "" {
		defaultServeFile = file
	}
	testscript.Main(m, map[string]func(){
		"corehaul":          func() { os.Exit(cli.Main("corehaul", run)) },
		"corehaul-commands": clitest.Commands("corehaul", run), // for tests of the lab
	})
}

// TestScripts runs the scripts of testdata/script. Besides testscript's own commands
// they have "exits CODE PROGRAM ARG...", "flip FILE OFFSET", which flips a bit, and
// "cut FILE LENGTH", "rmfile FILE", "link FILE NAME", which makes a symbolic link, "hasmagic FILE TEXT", "storereport ID FILE", which
// stores the report in a JSON file as that of a dump, and "adddump DIGIT HOST RELEASE", which makes a dump of a log whose id is that digit. $COREHAUL_DATA holds three dumps of made-up machines: a
// complete one of web1, a partial one of web2 and one of db1 that has only its log;
// core.kdump is a file of its own. $OWNPATH is a $PATH that has no program but corehaul.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "flip": flip, "hasmagic": hasMagic, "cut": cut, "rmfile": rmFile, "link": link, "storereport": storeReport, "adddump": addDump,
			"screens": clitest.Screens(t),
		},
		Setup: func(env *testscript.Env) error {
			data := filepath.Join(env.WorkDir, "data")
			env.Setenv("COREHAUL_DATA", data)
			own, _, _ := strings.Cut(env.Getenv("PATH"), string(os.PathListSeparator))
			env.Setenv("OWNPATH", own)
			env.Setenv("TEST_SERVE_FILE", filepath.Join(env.WorkDir, "etc", "serve.toml"))
			return errors.Join(makeStore(t.Context(), data), makeFile(filepath.Join(env.WorkDir, "core.kdump")))
		},
	})
}

// exits runs a program and compares its exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v exits %d, want %d", args[1:], got, want)
	}
}

// flip flips the lowest bit of one byte of the only file that matches a pattern.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	name := match(ts, args[0])
	off, err := strconv.Atoi(args[1])
	ts.Check(err)
	b, err := os.ReadFile(name)
	ts.Check(err)
	b[off] ^= 1
	ts.Check(os.WriteFile(name, b, 0o600))
}

// match returns the only file that matches a pattern.
func match(ts *testscript.TestScript, pattern string) string {
	names, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if len(names) != 1 {
		ts.Fatalf("%s: %d files", pattern, len(names))
	}
	return names[0]
}

// cut cuts the only file that matches a pattern to a length.
func cut(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(match(ts, args[0]), n))
}

// rmFile removes the only file that matches a pattern.
func rmFile(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.Remove(match(ts, args[0])))
}

// link makes a symbolic link to the only file that matches a pattern.
func link(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.Symlink(match(ts, args[0]), ts.MkAbs(args[1])))
}

// storeReport stores the report in a file as serve would.
func storeReport(ts *testscript.TestScript, _ bool, args []string) {
	store, err := stores.Open(context.Background(), ts.Getenv("COREHAUL_DATA"), storage.OpenOptions{})
	ts.Check(err)
	e, err := store.Find(context.Background(), args[0])
	ts.Check(err)
	text, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	h := dumpdir.ReportHead{Program: "corehaul test"}
	head := struct {
		Version     *int `json:"report_version"`
		Kind, Title *string
		Signatures  *dumpdir.Signatures
	}{&h.ReportVersion, &h.Kind, &h.Title, &h.Signatures}
	ts.Check(json.Unmarshal(text, &head))
	f := dumpdir.NewStoredReport(&e.Manifest, h, text, time.Now())
	ts.Check(errors.Join(store.SaveSide(context.Background(), e.Ref, f, &e.Manifest), store.Close()))
}

// addDump makes a dump that has only its log. The crash is a day later than that of the digit before.
func addDump(ts *testscript.TestScript, _ bool, args []string) {
	store, err := stores.Open(context.Background(), ts.Getenv("COREHAUL_DATA"), storage.OpenOptions{})
	ts.Check(err)
	day, err := strconv.ParseInt(args[0], 16, 8)
	ts.Check(err)
	meta := dumpdir.Meta{
		ID: strings.Repeat(args[0], 32), Host: args[1], Release: args[2], Machine: "x86_64",
		PanicLine: "Kernel panic - not syncing: " + args[1], CrashTime: time.Unix(1710000000+day*86400, 0), Transport: "tls", Peer: "192.0.2.1:1",
	}
	ts.Check(errors.Join(makeDump(context.Background(), store, meta, -1), store.Close()))
}

// hasMagic tells whether a file begins with a text.
func hasMagic(ts *testscript.TestScript, _ bool, args []string) {
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	if !bytes.HasPrefix(b, []byte(args[1])) {
		ts.Fatalf("%s does not begin with %q", args[0], args[1])
	}
}

const (
	testPage  = 4096
	testPages = 64
)

// testNotes is a PT_NOTE with a VMCOREINFO.
func testNotes() []byte {
	text := "OSRELEASE=6.1.0-test\nPAGESIZE=4096\nCRASHTIME=1700000000\n"
	for len(text)%4 != 0 {
		text += "\n"
	}
	b := binary.LittleEndian.AppendUint32(nil, 11)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	return append(append(b, "VMCOREINFO\x00\x00"...), text...)
}

// testPageData is what is in a page; every fourth is zero.
func testPageData(pfn int) []byte {
	if pfn%4 == 0 {
		return make([]byte, testPage)
	}
	return []byte(strings.Repeat(fmt.Sprintf("page %03d ", pfn), testPage)[:testPage])
}

func makeStore(ctx context.Context, data string) error {
	store, err := stores.Open(ctx, data, storage.OpenOptions{})
	if err != nil {
		return err
	}
	for i, d := range []struct {
		host   string
		chunks int // of 4, or none at all
	}{{"web1", 4}, {"web2", 2}, {"db1", -1}} {
		meta := dumpdir.Meta{
			ID: strings.Repeat(fmt.Sprintf("%x", 10+i), 32), Host: d.host, Release: "6.1.0-test", Nodename: "victim", Machine: "x86_64",
			PanicLine: "Kernel panic - not syncing: " + d.host, CrashTime: time.Unix(1700000000+int64(i)*86400, 0), Transport: "tls", Peer: "192.0.2.1:1",
		}
		if err := makeDump(ctx, store, meta, d.chunks); err != nil {
			return errors.Join(err, store.Close())
		}
	}
	return store.Close()
}

func makeDump(ctx context.Context, store storage.Store, meta dumpdir.Meta, chunks int) error {
	w, err := store.Create(ctx, meta)
	if err != nil {
		return err
	}
	log := "[    0.000000] Linux version 6.1.0-test\n[    9.000000] " + meta.PanicLine + "\n"
	if err := w.StoreLog(strings.NewReader(log)); err != nil {
		return err
	}
	if chunks >= 0 {
		if err := putChunks(w, chunks); err != nil {
			return err
		}
	}
	if _, err := w.Seal(ctx, "the line was cut"); err != nil {
		return err
	}
	return w.Close()
}

func putChunks(w *dumpdir.Writer, chunks int) error {
	plan, err := w.StartPlan(dumpdir.Facts{
		PageSize: testPage, MaxPFN: testPages, NrCPUs: 1, DumpLevel: 31, Codecs: dumpdir.PageSnappy, Notes: testNotes(),
		Time: time.Unix(1700000000, 0), RAM: []mem.Range{{Start: 0, End: testPages * testPage}},
	})
	if err != nil {
		return err
	}
	if err := plan.Add(mem.Extent{Start: 0, Count: testPages}); err != nil {
		return err
	}
	if err := plan.Finish(dumpdir.PlanEnd{Hash: dumpdir.PlanHash{1}, Chunks: 4, Pages: testPages}); err != nil {
		return err
	}
	for seq := range chunks {
		c := &dumpdir.Chunk{Seq: uint64(seq), Extents: []chunk.Extent{
			{Extent: mem.Extent{Start: mem.PFN(seq * 16), Count: 16}},
		}}
		for pfn := seq * 16; pfn < seq*16+16; pfn++ {
			c.Data = append(c.Data, testPageData(pfn)...)
			c.Pages = append(c.Pages, dumpdir.PageRecord{Size: testPage})
		}
		if c.RawSum, err = dumpdir.NewPageDecoder(testPage).Sum(c.Pages, c.Data); err != nil {
			return err
		}
		if err := w.PutChunk(c); err != nil {
			return err
		}
	}
	return nil
}

// makeFile writes a complete kdump-compressed file of raw pages.
func makeFile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	h := &kdumpfile.Header{
		Utsname:  uts.Name{Sysname: "Linux", Nodename: "victim", Release: "6.1.0-test", Machine: "x86_64"},
		PageSize: testPage, MaxPFN: testPages, NrCPUs: 1, DumpLevel: 31, Notes: testNotes(),
		RAM: []mem.Range{{Start: 0, End: testPages * testPage}},
	}
	all := mem.Extent{Start: 0, Count: testPages}
	w, err := kdumpfile.Create(f, h, one(all))
	if err != nil {
		return err
	}
	var descs []kdumpfile.PageDesc
	off := w.Layout().FirstPage()
	for pfn := range testPages {
		if _, err := f.WriteAt(testPageData(pfn), off); err != nil {
			return err
		}
		descs = append(descs, kdumpfile.PageDesc{Offset: off, Size: testPage})
		off += testPage
	}
	return errors.Join(w.PutPages(all, descs), w.SealComplete(), f.Close())
}

func one(e mem.Extent) iter.Seq[mem.Extent] { return slices.Values([]mem.Extent{e}) }
