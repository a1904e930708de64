package protocol

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"debug/elf"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/s2"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
)

var update = flag.Bool("update", false, "write testdata again")

const (
	recordedFile = "testdata/session-6.1-x86_64.bin"
	recordedELF  = "../vmcore/vmcoretest/testdata/vmcore-6.1-x86_64-tiny.elf.gz"
)

// recorded returns the sender's bytes of a session with parts of a real dump.
func recorded(tb testing.TB) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.FromSlash(recordedFile))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// oblige gives the answer of a receiver that lets the sender go on.
func oblige(c *Conn, m Message) error {
	switch m := m.(type) {
	case *LogEnd:
		if err := c.Write(&LogStored{Bytes: m.Bytes}); err != nil {
			return err
		}
		return c.Write(&Welcome{Tool: "corehaul", Host: "h", Collect: CollectAll, WindowBytes: 1 << 20, Encodings: Encodings{EncodingSnappyPage, EncodingZstdPage, EncodingLZ4Block, EncodingZstdBlock}})
	case *PlanEnd:
		return c.Write(&PlanOK{})
	case *Finish:
		return c.Write(&Sealed{State: StateComplete, ID: "x"})
	}
	return nil
}

// TestRecordedSession replays the recorded bytes against a receiver and checks all
// sums in them.
func TestRecordedSession(t *testing.T) {
	if *update {
		if err := os.WriteFile(filepath.FromSlash(recordedFile), recordSession(t), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := NewConn(stream(recorded(t)), Receiver)
	var notes []byte
	var runs *RunDecoder
	var end *PlanEnd
	pages := uint64(0)
	for {
		m, err := c.Read()
		if err != nil {
			t.Fatalf("after %d bytes: %v", c.BytesRead(), err)
		}
		if err := oblige(c, m); err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *Hello:
			runs = NewRunDecoder(m.Params())
		case *Notes:
			notes = append(notes, m.Data...)
		case *Plan:
			if err := runs.Decode(m.Data, func(Run) error { return nil }); err != nil {
				t.Fatal(err)
			}
		case *PlanEnd:
			end = m
			sum := runs.Sum()
			if err := sum.Check(end); err != nil {
				t.Fatal(err)
			}
		case *Chunk:
			pages += checkRecordedChunk(t, m)
		case *Finish:
			if !bytes.Contains(notes, []byte("OSRELEASE=6.1.0")) || pages != end.Kept || pages == 0 {
				t.Errorf("%d of %d pages, %d bytes of notes", pages, end.Kept, len(notes))
			}
			return
		}
	}
}

// checkRecordedChunk decodes the pages of a chunk and returns how many it has.
func checkRecordedChunk(t *testing.T, ch *Chunk) uint64 {
	t.Helper()
	var raw []byte
	for pfn, rec := range ch.records(4096) {
		page := rec
		if len(rec) < 4096 {
			var err error
			if page, err = s2.Decode(nil, rec); err != nil || len(page) != 4096 {
				t.Fatalf("pfn %d: %d bytes, %v", pfn, len(page), err)
			}
		}
		raw = append(raw, page...)
	}
	if sum := RawSum(raw); sum != ch.RawSum {
		t.Errorf("chunk %d: raw sum %#x, want %#x", ch.Seq, sum, ch.RawSum)
	}
	return uint64(ch.DataPages() + ch.ZeroPages())
}

// recordSession makes the recorded bytes out of a real dump.
func recordSession(t *testing.T) []byte {
	t.Helper()
	core := openCore(t)
	var ram []mem.Range
	var notes []byte
	pages := make(map[mem.PFN][]byte)
	for _, p := range core.Progs {
		data, err := io.ReadAll(p.Open())
		if err != nil {
			t.Fatal(err)
		}
		if p.Type == elf.PT_NOTE {
			notes = data
			continue
		}
		ram = append(ram, mem.Range{Start: mem.PhysAddr(p.Paddr), End: mem.PhysAddr(p.Paddr + p.Memsz)})
		for i := 0; i < len(data); i += 4096 {
			page := make([]byte, 4096)
			copy(page, data[i:])
			pages[mem.PhysAddr(p.Paddr+uint64(i)).PFN(12)] = page
		}
	}
	slices.SortFunc(ram, func(a, b mem.Range) int { return cmp.Compare(a.Start, b.Start) })
	return playSession(t, notes, ram, pages)
}

func openCore(t *testing.T) *elf.File {
	t.Helper()
	f, err := os.Open(filepath.FromSlash(recordedELF))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	core, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return core
}

// playSession writes a session in which all pages are of one tier. The receiver's
// part is only noted in the state machine.
func playSession(t *testing.T, notes []byte, ram []mem.Range, pages map[mem.PFN][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	c := NewConn(&out, Sender)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	maxPFN := ram[len(ram)-1].Pages(12).End()
	hello := &Hello{
		DumpID: DumpID(nil, notes, nil), Tool: "corehaul-send 1.0", Machine: "x86_64", PageSize: 4096, MaxPFN: maxPFN, NrCPUs: 2,
		Uts: uts.Name{Sysname: "Linux", Release: "6.1.0-56-cloud-amd64"}, CrashTime: 1795406240, Encodings: Encodings{EncodingSnappyPage},
	}
	must(c.Write(hello))
	must(c.WriteNotes(notes))
	must(c.WriteRAM(ram))
	must(c.NewLogWriter().Close("the dump has no log"))
	must(c.order.pass(Receiver, &LogStored{}))
	must(c.order.pass(Receiver, &Welcome{Version: 1, Collect: CollectAll, Encodings: hello.Encodings}))
	enc := NewRunEncoder(hello.Params(), func(piece []byte) error { return c.Write(&Plan{Data: piece}) })
	var chunks []*Chunk
	cut := NewCutter(4096, func(extents []mem.Extent) error {
		chunks = append(chunks, chunkOf(uint64(len(chunks)), extents, pages))
		return nil
	})
	for _, r := range ram {
		must(enc.Add(Run{Extent: r.Pages(12)}))
		must(cut.Add(r.Pages(12)))
	}
	must(cut.Flush())
	sum, err := enc.Close()
	must(err)
	must(c.Write(&PlanEnd{
		Hash: sum.Hash, Runs: sum.Runs, Kept: sum.Kept, Chunks: sum.Chunks(),
		Tiers: []Tier{{Name: "kernel", Essential: true, Pages: sum.Kept, Chunks: sum.Chunks()}}, Codec: EncodingSnappyPage,
	}))
	must(c.order.pass(Receiver, &PlanOK{}))
	for _, ch := range chunks {
		must(c.Write(ch))
	}
	must(c.Write(&Finish{Reason: ReasonComplete}))
	return out.Bytes()
}

// chunkOf codes pages as snappy records.
func chunkOf(seq uint64, extents []mem.Extent, pages map[mem.PFN][]byte) *Chunk {
	ch := &Chunk{Seq: seq}
	var raw []byte
	for _, e := range extents {
		for pfn := e.Start; pfn < e.End(); pfn++ {
			kind := chunk.Data
			if bytes.Count(pages[pfn], []byte{0}) == 4096 {
				kind = chunk.Zero
			}
			ch.Extents = chunk.AppendPage(ch.Extents, pfn, kind)
			if kind == chunk.Zero {
				continue
			}
			raw = append(raw, pages[pfn]...)
			rec := s2.EncodeSnappy(nil, pages[pfn])
			if len(rec) >= 4096 {
				rec = pages[pfn]
			}
			ch.Sizes = append(ch.Sizes, uint32(len(rec)))
			ch.Payload = append(ch.Payload, rec...)
			ch.Encoding = EncodingSnappyPage
		}
	}
	ch.RawSum = RawSum(raw)
	return ch
}
