package dumpdir

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/mem"
)

// exampleJournal returns the worked example in one piece.
func exampleJournal() []byte {
	parts, _ := exampleRecords()
	return bytes.Join(parts, nil)
}

// FuzzJournal reads anything as a journal: what is accepted keeps the rules that the rest of the package
// builds on, and memory does not grow with what is claimed.
func FuzzJournal(f *testing.F) {
	whole := exampleJournal()
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(append(bytes.Clone(whole), whole[journalHeaderLen:]...))
	broken := bytes.Clone(whole)
	broken[len(broken)-20] ^= 1
	f.Add(broken)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		fixSums(b)
		j, err := loadJournal(bytes.NewReader(b), int64(len(b)), nil)
		if err != nil {
			if !isDamage(err) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("error of no known kind: %v", err)
			}
			return
		}
		checkLoaded(t, j)
	})
}

// fixSums makes the checksums of the records right as long as their headers are plausible, so that the
// fuzzer gets behind them.
func fixSums(b []byte) {
	if len(b) < journalHeaderLen {
		return
	}
	copy(b, journalHeader(journalVersion2))
	for off := journalHeaderLen; off+recordHeaderLen <= len(b); {
		n, ok := plausibleHeader(b[off:])
		if !ok || off+recordHeaderLen+n > len(b) {
			return
		}
		head, payload := b[off:off+recordHeaderLen], b[off+recordHeaderLen:][:n]
		if payload = payload[:n:n]; b[off+8] != 0xff { // leave some broken
			le.PutUint32(head[8:], recordSum(int64(off), head, payload))
		}
		off += recordHeaderLen + n
	}
}

func checkLoaded(t *testing.T, j *journal) {
	t.Helper()
	if !ValidID(j.ident.id) || j.end > j.size {
		t.Fatalf("ident %+v, end %d of %d", j.ident, j.end, j.size)
	}
	if j.plan == nil {
		return
	}
	var pages, last uint64
	var err error
	for e := range j.runs(&err) {
		if !e.Valid(j.plan.MaxPFN) || uint64(e.Start) < last {
			t.Fatalf("run %v of max_mapnr %d after %d", e, j.plan.MaxPFN, last)
		}
		last, pages = uint64(e.End()), pages+e.Count
	}
	if err != nil || pages != j.plan.Pages {
		t.Fatalf("%d pages in runs, plan has %d: %v", pages, j.plan.Pages, err)
	}
	var n uint64
	end := j.plan.firstPage()
	if err := j.chunks(func(c *chunkRecord) error {
		if n++; c.offset < end {
			t.Fatalf("chunk %d overlaps", c.seq)
		}
		end = c.end()
		return nil
	}); err != nil || n != j.count.chunks || n != j.have.n {
		t.Fatalf("%d chunks, loaded %d: %v", n, j.count.chunks, err)
	}
	for range j.presentPages(&err) { // only that it ends, and within its memory
	}
}

// FuzzManifest reads anything as a manifest: what is accepted can be written, and reads back the same.
func FuzzManifest(f *testing.F) {
	m := manifestOf(&journal{ident: identRecord{id: "00112233445566778899aabbccddeeff", host: "n1"}, facts: exampleFacts(), plan: &PlanInfo{}})
	m.State, m.Encodings = StatePartial, map[string]uint64{"raw": 1}
	b, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"id":"00112233445566778899aabbccddeeff","state":"arriving","x":1}`))
	f.Add(append(bytes.Clone(b), b...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(bytes.NewReader(b))
		if (m == nil) == (err == nil) {
			t.Fatalf("manifest %v with error %v", m, err)
		}
		if err != nil {
			if !isDamage(err) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("error of no known kind: %v", err)
			}
			return
		}
		once, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseManifest(bytes.NewReader(once))
		if err != nil {
			t.Fatalf("%v, written as %s", err, once)
		}
		if twice, err := json.Marshal(again); err != nil || !bytes.Equal(compact(t, once), twice) {
			t.Fatalf("%s\n%s\n%v", once, twice, err)
		}
	})
}

func compact(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestResyncFindsRecordBehindDamage(t *testing.T) {
	b := exampleJournal()
	parts, _ := exampleRecords()
	seal := len(b) - len(parts[len(parts)-1])
	chunk := seal - len(parts[len(parts)-2])
	b[chunk+30] ^= 1
	j, err := loadJournal(bytes.NewReader(b), int64(len(b)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(j.broken) != 1 || j.broken[0] != (span{int64(chunk), int64(seal)}) || j.seal == nil || j.count.chunks != 0 {
		t.Errorf("broken %v, %d chunks, seal %v", j.broken, j.count.chunks, j.seal)
	}
}

// TestResyncIsBounded gives resync a journal in which a plausible record begins at every 12th byte.
func TestResyncIsBounded(t *testing.T) {
	b := exampleJournal()
	head := make([]byte, recordHeaderLen)
	le.PutUint16(head, uint16(recChunk))
	le.PutUint32(head[4:], maxPayload)
	b = append(b, bytes.Repeat(head, 3*maxBatch/recordHeaderLen)...)
	s := &countingReader{r: bytes.NewReader(b)}
	_, err := loadJournal(s, int64(len(b)), nil)
	if !isDamage(err) {
		t.Errorf("got %v", err)
	}
	if s.n > 2*maxResyncSums {
		t.Errorf("%d bytes were read", s.n)
	}
}

type countingReader struct {
	r io.ReaderAt
	n int
}

func (r *countingReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.r.ReadAt(p, off)
	r.n += n
	return n, err
}

func TestSeqSet(t *testing.T) {
	s := newSeqSet()
	for _, q := range []uint64{5, 6, 7, 63, 64, 65, 4095, 4096, 1 << 50} {
		if !s.add(q) || s.add(q) || !s.has(q) {
			t.Errorf("add %d", q)
		}
	}
	want := []chunk.SeqRange{{First: 5, Last: 7}, {First: 63, Last: 65}, {First: 4095, Last: 4096}, {First: 1 << 50, Last: 1 << 50}}
	got := s.ranges()
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
	if s.has(8) || s.has(0) || s.n != 9 {
		t.Error("set has what was not put in")
	}
}

func TestRunsAcrossPieces(t *testing.T) {
	enc := runEncoder{limit: 1 << 40}
	var want []mem.Extent
	var pieces [][]byte
	for i := range mem.PFN(1000) {
		e := mem.Extent{Start: i * i * 1000, Count: uint64(i)%7 + 1}
		if err := enc.add(e); err != nil {
			t.Fatal(err)
		}
		want = append(want, e)
		if i%10 == 9 {
			pieces = append(pieces, bytes.Clone(enc.buf))
			enc.buf = enc.buf[:0]
		}
	}
	enc.flush()
	pieces = append(pieces, enc.buf)
	dec := runDecoder{limit: 1 << 40}
	var got []mem.Extent
	for _, p := range pieces {
		if _, err := dec.piece(p, func(e mem.Extent) bool { got = append(got, e); return true }); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d runs, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("run %d: got %v, want %v", i, got[i], want[i])
		}
	}
}
