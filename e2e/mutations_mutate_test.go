package e2e

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
)

// mutator changes a file and says what it did. It may change b in place.
type mutator func(r *rand.Rand, b []byte) (out []byte, what string)

// mutSeed makes the n-th change of a format always the same one.
func mutSeed(format string, n int) *rand.Rand {
	seed := uint64(14695981039346656037)
	for _, c := range []byte(format) {
		seed = (seed ^ uint64(c)) * 1099511628211
	}
	return rand.New(rand.NewPCG(seed, uint64(n)))
}

// mutRegions are the parts of the file that a change may aim at: each is as likely, however small it is. Most of a dump is page data.
func mutRegions(b []byte) []mutSpan {
	all := []mutSpan{{0, int64(len(b))}}
	f := &mutFile{b: b}
	if k, ok := f.kdump(); ok {
		last := k.descs
		k.pages(func(_ uint64, desc int64) { last = desc + 24 })
		return append(all, mutSpan{0, 464}, mutSpan{k.block, k.block + 104}, mutSpan{k.block + 104, k.descs}, mutSpan{k.descs, last}, mutSpan{last, all[0].to})
	}
	if loads, ok := f.loads(); ok && len(loads) > 0 {
		first, last := int64(loads[0].at), int64(loads[len(loads)-1].at)+56
		return append(all, mutSpan{0, 64}, mutSpan{first, last}, mutSpan{last, last + 4096})
	}
	if records, _ := mutRecords(b); len(records) > 0 {
		i := records[0]
		return append(all, mutSpan{0, 32}, mutSpan{mutFlatHeader, int64(i.at + 16 + len(i.payload))})
	}
	return all
}

// mutAim chooses n bytes in one of the parts.
func mutAim(r *rand.Rand, b []byte, n int) int {
	parts := mutRegions(b)
	p := parts[r.IntN(len(parts))]
	from, to := int(p.from), min(int(p.to), len(b))
	return min(from+r.IntN(max(to-from-n+1, 1)), len(b)-n)
}

func mutFlip(r *rand.Rand, b []byte) ([]byte, string) {
	what := "flip bits"
	for range 1 + r.IntN(3) {
		at, bit := mutAim(r, b, 1), r.IntN(8)
		b[at] ^= 1 << bit
		what += fmt.Sprintf(" %d.%d", at, bit)
	}
	return b, what
}

func mutOverwrite(r *rand.Rand, b []byte) ([]byte, string) {
	n := min(1+r.IntN(600), len(b))
	at, fill := mutAim(r, b, n), []int{0, 0xff, -1}[r.IntN(3)]
	for i := at; i < at+n; i++ {
		if b[i] = byte(fill); fill < 0 {
			b[i] = byte(r.Uint32())
		}
	}
	return b, fmt.Sprintf("overwrite %d bytes at %d with %#x", n, at, fill)
}

func mutTruncate(r *rand.Rand, b []byte) ([]byte, string) {
	n := mutAim(r, b, 1)
	return b[:n], fmt.Sprintf("truncate to %d of %d", n, len(b))
}

// mutNumber gives a number in a header a value that programs slip on.
func mutNumber(r *rand.Rand, b []byte) ([]byte, string) {
	parts := mutRegions(b)
	p := parts[1%len(parts):][r.IntN(min(2, max(len(parts)-1, 1)))]
	width := []int{4, 8}[r.IntN(2)]
	at := int(p.from) + r.IntN(max(int(p.to-p.from)/width, 1))*width
	if at+width > len(b) {
		at = 0
	}
	raw := make([]byte, 8)
	copy(raw, b[at:at+width])
	old := binary.LittleEndian.Uint64(raw)
	values := []uint64{0, 1, old + 1, old - 1, old * 2, old / 2, old ^ 1<<12, 1 << 31, 1<<31 - 1, 1<<32 - 1, 1 << 40, 1<<63 - 1, 1 << 63, 1<<64 - 1}
	v := values[r.IntN(len(values))]
	binary.LittleEndian.PutUint64(raw, v)
	copy(b[at:], raw[:width])
	return b, fmt.Sprintf("number of %d bytes at %d: %#x, was %#x", width, at, v, old)
}

// mutTable changes the table of what there is: page descriptors, or program headers.
func mutTable(r *rand.Rand, b []byte) ([]byte, string) {
	f := &mutFile{b: b}
	var rows []int64
	width := int64(24)
	if k, ok := f.kdump(); ok {
		k.pages(func(_ uint64, desc int64) { rows = append(rows, desc) })
	} else if loads, ok := f.loads(); ok && len(loads) > 0 {
		for _, l := range loads {
			rows = append(rows, int64(l.at))
		}
		width = 56
	}
	if len(rows) < 2 {
		return mutFlip(r, b)
	}
	x, y := rows[r.IntN(len(rows))], rows[r.IntN(len(rows))]
	row := func(at int64) []byte { return b[at : at+width] }
	switch r.IntN(3) {
	case 0:
		old := slices.Clone(row(x))
		copy(row(x), row(y))
		copy(row(y), old)
		return b, fmt.Sprintf("swap rows at %d and %d", x, y)
	case 1:
		copy(row(x), row(y))
		return b, fmt.Sprintf("row at %d as that at %d", x, y)
	}
	end := rows[len(rows)-1] + width
	clear(b[x:end])
	return b, fmt.Sprintf("rows from %d to %d are zero", x, end)
}

func mutAppend(r *rand.Rand, b []byte) ([]byte, string) {
	n := 1 + r.IntN(5000)
	for range n {
		b = append(b, byte(r.Uint32()))
	}
	return b, fmt.Sprintf("append %d bytes", n)
}

// mutPlain are the changes of any file.
var mutPlain = []mutator{mutFlip, mutFlip, mutOverwrite, mutTruncate, mutNumber, mutNumber, mutTable, mutAppend}

// mutStream puts a flattened stream together again from its records.
func mutStream(head []byte, records []mutRecord, whole bool) []byte {
	out := slices.Clone(head[:mutFlatHeader])
	for _, r := range records {
		out = binary.BigEndian.AppendUint64(out, uint64(r.off))
		out = binary.BigEndian.AppendUint64(out, uint64(len(r.payload)))
		out = append(out, r.payload...)
	}
	if whole {
		out = append(out, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"...)
	}
	return out
}

// mutRecordsOf changes the records of a flattened stream, and not what is in them.
func mutRecordsOf(r *rand.Rand, b []byte) ([]byte, string) {
	records, whole := mutRecords(b)
	x, y := r.IntN(len(records)), r.IntN(len(records))
	var what string
	switch r.IntN(8) {
	case 0, 1, 2:
		records, what = slices.Delete(records, x, x+1), fmt.Sprintf("without record %d", x)
	case 3:
		records, what = slices.Insert(records, y, records[x]), fmt.Sprintf("record %d once more, as record %d", x, y)
	case 4:
		records[x], records[y] = records[y], records[x]
		what = fmt.Sprintf("records %d and %d change places", x, y)
	case 5:
		records[x].off += int64(r.IntN(1<<14) - 1<<13)
		what = fmt.Sprintf("record %d goes to %d", x, records[x].off)
	case 6:
		p := records[x].payload
		records[x].payload = p[:1+r.IntN(len(p))]
		what = fmt.Sprintf("record %d has %d of %d bytes", x, len(records[x].payload), len(p))
	default:
		whole, what = false, "without end marker"
	}
	return mutStream(b, records, whole), what
}

// mutInside changes what a flattened stream carries.
func mutInside(r *rand.Rand, b []byte) ([]byte, string) {
	records, whole := mutRecords(b)
	f := mutOpen(b)
	changed, what := mutPlain[r.IntN(len(mutPlain))](r, slices.Clone(f.b))
	for i, rec := range records {
		end := min(rec.off+int64(len(rec.payload)), int64(len(changed)))
		records[i].payload = changed[min(rec.off, end):end]
	}
	records = slices.DeleteFunc(records, func(r mutRecord) bool { return len(r.payload) == 0 })
	return mutStream(b, records, whole), "inside: " + what
}

// mutFlat are the changes of a flattened stream.
var mutFlat = []mutator{mutRecordsOf, mutRecordsOf, mutRecordsOf, mutInside, mutInside, mutFlip, mutTruncate, mutOverwrite}

// mutate makes change n of a format.
func mutate(format string, n int, base []byte, with []mutator) ([]byte, string) {
	r := mutSeed(format, n)
	b, what := with[r.IntN(len(with))](r, slices.Clone(base))
	if r.IntN(5) == 0 && len(b) > mutFlatHeader {
		var more string
		b, more = mutFlip(r, b)
		what += ", then " + more
	}
	return b, fmt.Sprintf("%s, seed %d: %s", format, n, what)
}
