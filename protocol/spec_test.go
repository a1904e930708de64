package protocol

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
)

// specification returns the text of PROTOCOL.md.
func specification(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// specExamples returns the hex blocks of PROTOCOL.md by name.
func specExamples(t *testing.T) map[string][]byte {
	t.Helper()
	blocks := regexp.MustCompile("(?s)```hex (\\w+)\n(.*?)```").FindAllStringSubmatch(specification(t), -1)
	examples := make(map[string][]byte)
	for _, block := range blocks {
		var digits strings.Builder
		for line := range strings.Lines(block[2]) {
			line, _, _ = strings.Cut(line, ";")
			digits.WriteString(strings.Join(strings.Fields(line), ""))
		}
		frame, err := hex.DecodeString(digits.String())
		if err != nil {
			t.Fatalf("example %s: %v", block[1], err)
		}
		examples[block[1]] = frame
	}
	return examples
}

var exampleParams = Params{PageSize: 4096, MaxPFN: 32, Level: 31}

func exampleHello() *Hello {
	return &Hello{
		Version: 1, MaxVersion: 1, DumpID: DumpID(nil, nil, nil), Tool: "corehaul-send 1.0", Machine: "x86_64",
		PageSize: 4096, MaxPFN: 32, RAMBytes: 32 * 4096, NrCPUs: 1, Level: 31, Encodings: Encodings{EncodingZstdPage},
	}
}

func exampleRuns() []Run {
	return []Run{
		{mem.Extent{Start: 4, Count: 3}, 0},
		{mem.Extent{Start: 7, Count: 1}, 1},
		{mem.Extent{Start: 16, Count: 3}, 0},
	}
}

func TestSpecificationExample(t *testing.T) {
	examples := specExamples(t)
	page := bytes.Repeat([]byte("A"), 4096)
	record, err := hex.DecodeString("28b52ffd60000f0380" + "0041")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Message{
		"hello": exampleHello(),
		"plan":  &Plan{Data: encodeRuns(t, exampleParams, exampleRuns())},
		"chunk": &Chunk{
			Encoding: EncodingZstdPage, RawSum: RawSum(page), Sizes: []uint32{11}, Payload: record,
			Extents: []chunk.Extent{
				{Extent: mem.Extent{Start: 4, Count: 1}, Kind: chunk.Data},
				{Extent: mem.Extent{Start: 5, Count: 2}, Kind: chunk.Zero},
				{Extent: mem.Extent{Start: 16, Count: 3}, Kind: chunk.Zero},
			},
		},
		"ack":   &Ack{Durable: setOf(t, 0)},
		"error": &wireError{Code: CodeNotPlanned, Text: "chunk 7 of a plan with 2"},
		"ping":  &Ping{Token: 1},
	}
	for name, m := range want {
		t.Run(name, func(t *testing.T) {
			frame, ok := examples[name]
			if !ok {
				t.Fatal("PROTOCOL.md has no such example")
			}
			if got := encodeFrame(t, m, exampleParams); !bytes.Equal(got, frame) {
				t.Errorf("encoded:\n%s\nPROTOCOL.md:\n%s", hex.Dump(got), hex.Dump(frame))
			}
			got := decodeFrame(t, frame, exampleParams)
			if diff := cmp.Diff(m, got, equalMessages); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
	if len(examples) != len(want) {
		t.Errorf("PROTOCOL.md has %d examples, this test knows %d", len(examples), len(want))
	}
	t.Run("pages", func(t *testing.T) {
		r, err := zstd.NewReader(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got, err := r.DecodeAll(record, nil); err != nil || !bytes.Equal(got, page) {
			t.Errorf("record decodes to %d bytes, %v", len(got), err)
		}
	})
}

func TestSpecificationExampleText(t *testing.T) {
	sum := sumOf(t, exampleParams, exampleRuns())
	want := fmt.Sprintf("The plan hash is %s; there are two chunks, 0 in tier 0 and 1 in tier 1.", sum.Hash)
	if !strings.Contains(specification(t), want) {
		t.Errorf("PROTOCOL.md does not say: %s", want)
	}
	if sum.TierChunks(0) != 1 || sum.TierChunks(1) != 1 || sum.Chunks() != 2 {
		t.Errorf("got %d+%d chunks, want 1+1", sum.TierChunks(0), sum.TierChunks(1))
	}
}

func TestSpecificationTypes(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\| 0x([0-9a-f]{2}) \| ([A-Z]+) \| (sender|receiver|both) \| (\w+) \| (.+?) \|$`).
		FindAllStringSubmatch(specification(t), -1)
	if len(rows) != len(types) {
		t.Errorf("PROTOCOL.md lists %d types, the package has %d", len(rows), len(types))
	}
	from := map[string]sides{"sender": fromSender, "receiver": fromReceiver, "both": fromBoth}
	limits := map[string]uint32{
		"64 KiB": 64 << 10, "1 MiB + 16 KiB": 1<<20 + 16<<10, "512 KiB": 512 << 10, "320 KiB + 10": 320<<10 + 10, "8": 8,
	}
	for _, row := range rows {
		var n uint8
		if _, err := fmt.Sscanf(row[1], "%x", &n); err != nil {
			t.Fatal(err)
		}
		info := types[Type(n)]
		if info.name != row[2] || info.from != from[row[3]] || info.limit != limits[row[5]] {
			t.Errorf("PROTOCOL.md: %v; the package: %+v", row[1:], info)
		}
		if json := newControl(Type(n)) != nil; json != (row[4] == "JSON") {
			t.Errorf("%s: PROTOCOL.md says %s", row[2], row[4])
		}
	}
}

func TestSpecificationCodes(t *testing.T) {
	_, section, _ := strings.Cut(specification(t), "\n## 13. Errors")
	section, _, _ = strings.Cut(section, "\n## 14.")
	documented := make(map[Code]bool)
	for _, row := range regexp.MustCompile(`(?m)^\| ([a-z-]+) \| (yes|no) \|`).FindAllStringSubmatch(section, -1) {
		documented[Code(row[1])] = row[2] == "yes"
	}
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	defined := regexp.MustCompile(`Code\w+\s+Code = "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(defined) != len(documented) || len(defined) == 0 {
		t.Errorf("PROTOCOL.md lists %d codes, errors.go has %d", len(documented), len(defined))
	}
	for _, d := range defined {
		code := Code(d[1])
		temporary, ok := documented[code]
		if !ok || temporary != code.Temporary() {
			t.Errorf("%s: documented %v, temporary %v in PROTOCOL.md, %v here", code, ok, temporary, code.Temporary())
		}
	}
}

// encodeFrame returns the frame of m for a dump with parameters p.
func encodeFrame(tb testing.TB, m Message, p Params) []byte {
	tb.Helper()
	c := NewConn(new(bytes.Buffer), Sender)
	c.order.params = p
	head, tail, err := c.encode(m)
	if err != nil {
		tb.Fatalf("encode %s: %v", m.Type(), err)
	}
	return append(bytes.Clone(head), tail...)
}

// decodeFrame decodes one frame without regard to the order of messages.
func decodeFrame(tb testing.TB, frame []byte, p Params) Message {
	tb.Helper()
	m, err := tryFrame(frame, p)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func tryFrame(frame []byte, p Params) (Message, error) {
	side := Receiver
	if len(frame) > 2 && frame[2]&0x40 != 0 {
		side = Sender
	}
	c := NewConn(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(frame), io.Discard}, side)
	h, err := c.readHeader()
	if err != nil {
		return nil, err
	}
	payload, err := c.readPayload(h, nil)
	if err != nil {
		return nil, err
	}
	if h.typ == TypeChunk {
		ch := new(Chunk)
		if err := ch.decode(payload, p); err != nil {
			return nil, err
		}
		return ch, nil
	}
	return decodeMessage(h.typ, payload, nil)
}

// equalMessages compares chunks without the memory that they own, and sets by content.
var equalMessages = cmp.Options{
	cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "frame" }, cmp.Ignore()),
	cmp.Transformer("set", func(s SeqSet) string { return fmt.Sprint(s.ranges) }),
	cmp.Transformer("bytes", func(b []byte) string { return string(b) }),
	cmp.AllowUnexported(Chunk{}),
}

func encodeRuns(tb testing.TB, p Params, runs []Run) []byte {
	tb.Helper()
	var all []byte
	e := NewRunEncoder(p, func(piece []byte) error {
		all = append(all, piece...)
		return nil
	})
	for _, r := range runs {
		if err := e.Add(r); err != nil {
			tb.Fatal(err)
		}
	}
	if _, err := e.Close(); err != nil {
		tb.Fatal(err)
	}
	return all
}

func sumOf(tb testing.TB, p Params, runs []Run) PlanSum {
	tb.Helper()
	e := NewRunEncoder(p, nil)
	for _, r := range runs {
		if err := e.Add(r); err != nil {
			tb.Fatal(err)
		}
	}
	sum, err := e.Close()
	if err != nil {
		tb.Fatal(err)
	}
	return sum
}

func setOf(tb testing.TB, seqs ...uint64) SeqSet {
	tb.Helper()
	var s SeqSet
	for _, n := range seqs {
		if err := s.Add(n, n); err != nil {
			tb.Fatal(err)
		}
	}
	return s
}
