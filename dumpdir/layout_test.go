package dumpdir

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
)

var update = flag.Bool("update", false, "write the worked example into docs/layout.md again")

const layoutDoc = "../docs/layout.md"

// exampleFacts is the machine of the worked example.
func exampleFacts() *Facts {
	return &Facts{
		Utsname: uts.Name{Sysname: "Linux", Nodename: "n1", Release: "6.1", Version: "#1", Machine: "x86_64"},
		Time:    time.Unix(1700000000, 0).UTC(), PageSize: 4096, MaxPFN: 6, NrCPUs: 2, CurrentCPU: 1, PhysBase: 0x1000000,
		DumpLevel: 31, Codecs: PageSnappy, Notes: []byte("note"), RAM: []mem.Range{{Start: 0x1000, End: 0x6000}},
	}
}

// exampleRecords returns the journal of the worked example, record by record, with a comment for each.
func exampleRecords() (parts [][]byte, comments []string) {
	f := exampleFacts()
	runs := runEncoder{limit: f.MaxPFN}
	for _, e := range []mem.Extent{{Start: 1, Count: 2}, {Start: 5, Count: 1}} {
		if err := runs.add(e); err != nil {
			panic(err)
		}
	}
	runs.flush()
	layout, err := f.header().Layout(3)
	if err != nil {
		panic(err)
	}
	plan := PlanInfo{PlanEnd: PlanEnd{Hash: PlanHash{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}, Chunks: 2, Pages: 3}, Runs: 2, PageSize: 4096, DataOffset: layout.Data}
	chunk := &Chunk{
		Seq: 0, RawSum: 0x1122334455667788, Data: []byte{0xa, 0xb, 0xc}, Pages: []PageRecord{{Size: 3, Flags: PageSnappy}},
		Extents: []chunk.Extent{{Extent: mem.Extent{Start: 1, Count: 1}}, {Extent: mem.Extent{Start: 5, Count: 1}, Kind: chunk.Zero}},
	}
	seal := &sealRecord{state: StatePartial, time: 1700000100, present: 2, size: plan.firstPage() + 3, reason: "deadline"}
	ram := le.AppendUint64(le.AppendUint64(nil, 0x1000), 0x6000)
	parts, comments = [][]byte{journalHeader(journalVersion1)}, []string{"header: magic, version 1, zero, checksum"}
	off := int64(journalHeaderLen)
	for _, r := range []struct {
		t       recordType
		payload []byte
		comment string
	}{
		{recIdent, (&identRecord{id: "00112233445566778899aabbccddeeff", host: "n1"}).encode(), "id and host"},
		{recLog, (&logRecord{size: 42}).encode(), "42 bytes of log; its SHA-256 is shown as zeros"},
		{recFacts, encodeFacts(f), "3.4"},
		{recNotes, f.Notes, "all 4 bytes of notes"},
		{recRAM, ram, "0x1000 to 0x5fff"},
		{recRuns, runs.buf, "gap 1, 2 pages; gap 2, 1 page"},
		{recPlanEnd, encodePlanEnd(&plan), fmt.Sprintf("2 chunks, 3 pages, 2 runs, page data from %#x", plan.DataOffset)},
		{recChunk, appendChunkRecord(nil, chunk, plan.firstPage()), "chunk 0: a data page and a zero page"},
		{recSeal, seal.encode(), "partial; the SHA-256 of vmcore is shown as zeros"},
	} {
		rec := appendRecord(nil, off, r.t, r.payload)
		comments = append(comments, fmt.Sprintf("%d: %v: %s", off, r.t, r.comment))
		parts = append(parts, rec)
		off += int64(len(rec))
	}
	return parts, comments
}

// hexBlock writes bytes as the document shows them.
func hexBlock(parts [][]byte, comments []string) string {
	var b strings.Builder
	for i, p := range parts {
		fmt.Fprintf(&b, "# %s\n", comments[i])
		for len(p) > 0 {
			n := min(16, len(p))
			fmt.Fprintf(&b, "% x\n", p[:n])
			p = p[n:]
		}
	}
	return b.String()
}

// readHexBlock reads the worked example out of the document.
func readHexBlock(t *testing.T) (doc, block string, raw []byte) {
	t.Helper()
	b, err := os.ReadFile(layoutDoc)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "```hex\n")
	block, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatal("the document has no worked example")
	}
	var digits strings.Builder
	for line := range strings.Lines(block) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	raw, err = hex.DecodeString(digits.String())
	if err != nil && !*update {
		t.Fatal(err)
	}
	return string(b), block, raw
}

func TestWorkedExample(t *testing.T) {
	parts, comments := exampleRecords()
	doc, block, raw := readHexBlock(t)
	if *update {
		doc = strings.Replace(doc, "```hex\n"+block, "```hex\n"+hexBlock(parts, comments), 1)
		if err := os.WriteFile(layoutDoc, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := bytes.Join(parts, nil); !bytes.Equal(raw, want) {
		t.Errorf("the document has\n%x\nthe writer makes\n%x", raw, want)
	}
	var chunks []uint64
	j, err := loadJournal(bytes.NewReader(raw), int64(len(raw)), func(c *chunkRecord, _ int64) error {
		chunks = append(chunks, c.seq)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if j.ident.host != "n1" || j.plan.Pages != 3 || len(chunks) != 1 || j.seal == nil || j.seal.reason != "deadline" || len(j.broken) != 0 {
		t.Errorf("the example reads as %+v", j)
	}
	var rerr error
	var runs []mem.Extent
	for e := range j.runs(&rerr) {
		runs = append(runs, e)
	}
	if rerr != nil || len(runs) != 2 || runs[0] != (mem.Extent{Start: 1, Count: 2}) || runs[1] != (mem.Extent{Start: 5, Count: 1}) {
		t.Errorf("runs %v, %v", runs, rerr)
	}
}
