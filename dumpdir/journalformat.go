package dumpdir

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// The journal's byte layout. docs/layout.md specifies it; all integers are little endian.
const (
	journalMagic     = "CHCHUNKS"
	journalHeaderLen = 16 // magic, u16 version, u16 zero, u32 CRC-32C of the 12 bytes before

	recordHeaderLen = 12 // u16 type, u16 zero, u32 payload length, u32 CRC-32C
	maxPayload      = 128 << 10

	// pieceLen bounds the payload of records that carry a piece of something longer.
	pieceLen = 64 << 10
	// maxBatch bounds the bytes between two fsyncs, and so the length of a torn tail.
	maxBatch = 1 << 20
)

type recordType uint16

const (
	recIdent   recordType = 1  // id and host
	recLog     recordType = 2  // the kernel log is stored
	recFacts   recordType = 3  // begins the plan
	recNotes   recordType = 4  // piece of the ELF notes
	recRAM     recordType = 5  // piece of the RAM ranges
	recRuns    recordType = 6  // piece of the planned runs
	recPlanEnd recordType = 7  // ends the plan
	recChunk   recordType = 8  // pages that are stored
	recSeal    recordType = 9  // the dump is final
	recReopen  recordType = 10 // a sealed dump goes on
)

var recordNames = map[recordType]string{
	recIdent: "ident", recLog: "log", recFacts: "facts", recNotes: "notes", recRAM: "ram", recRuns: "runs",
	recPlanEnd: "plan end", recChunk: "chunk", recSeal: "seal", recReopen: "reopen",
}

func (t recordType) String() string {
	if s, ok := recordNames[t]; ok {
		return s
	}
	return fmt.Sprintf("record type %d", uint16(t))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Versions of the journal. A journal has the lowest version that can hold the dump, so older programs read it if
// possible.
const (
	journalVersion1 = 1
	journalVersion2 = 2 // facts have factExcludedVmemmap and factEraseinfo
	journalVersion3 = 3 // plan end has both halves of the plan's hash
)

// journalHeader returns the first bytes of a journal.
func journalHeader(version uint16) []byte {
	b := append(make([]byte, 0, journalHeaderLen), journalMagic...)
	b = binary.LittleEndian.AppendUint16(b, version)
	b = binary.LittleEndian.AppendUint16(b, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// checkJournalHeader returns the version. Its error says whether the header is damaged or the version unknown.
func checkJournalHeader(b []byte) (version uint16, err error) {
	if len(b) < journalHeaderLen || string(b[:8]) != journalMagic {
		return 0, &DamageError{File: JournalName, Offset: 0, Text: "no journal header"}
	}
	if crc32.Checksum(b[:12], castagnoli) != binary.LittleEndian.Uint32(b[12:]) {
		return 0, &DamageError{File: JournalName, Offset: 0, Text: "checksum of the journal header"}
	}
	version = binary.LittleEndian.Uint16(b[8:])
	if version < journalVersion1 || version > journalVersion3 {
		return 0, fmt.Errorf("%s: version %d: %w", JournalName, version, ErrUnsupported)
	}
	if z := binary.LittleEndian.Uint16(b[10:]); z != 0 {
		return 0, &DamageError{File: JournalName, Offset: 10, Text: "reserved bytes of the journal header are not zero"}
	}
	return version, nil
}

// recordSum is the checksum of a record at file offset off. It includes the offset, so a record that a torn write
// left in the wrong place does not match.
func recordSum(off int64, head, payload []byte) uint32 {
	sum := crc32.Update(0, castagnoli, appendI64(make([]byte, 0, 8), off))
	sum = crc32.Update(sum, castagnoli, head[:8])
	return crc32.Update(sum, castagnoli, payload)
}

// appendRecord appends to b a record that will stand at file offset off.
func appendRecord(b []byte, off int64, t recordType, payload []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint16(b, uint16(t))
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = appendU32(b, len(payload))
	b = binary.LittleEndian.AppendUint32(b, recordSum(off, b[start:], payload))
	return append(b, payload...)
}

// plausibleHeader reports whether b could begin a record, and its payload's length.
func plausibleHeader(b []byte) (length int, ok bool) {
	t := recordType(binary.LittleEndian.Uint16(b))
	n := binary.LittleEndian.Uint32(b[4:])
	if t < recIdent || t > recReopen || b[2] != 0 || b[3] != 0 || n > maxPayload {
		return 0, false
	}
	return int(n), true
}

// cursor reads little-endian fields. After a read beyond the end, all fields are zero and done is false, so a decoder
// checks once.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) bytes(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) u8() uint8 {
	if p := c.bytes(1); p != nil {
		return p[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if p := c.bytes(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if p := c.bytes(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if p := c.bytes(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (c *cursor) i64() int64 { return int64(c.u64()) } //nolint:gosec // two's complement

// offset reads a file offset or length: 63 bits.
func (c *cursor) offset() int64 {
	v := c.u64()
	if v>>63 != 0 {
		c.bad = true
		return 0
	}
	return int64(v)
}

func (c *cursor) zeros(n int) {
	for _, z := range c.bytes(n) {
		if z != 0 {
			c.bad = true
		}
	}
}

// str reads a string behind its length in one byte.
func (c *cursor) str() string { return string(c.bytes(int(c.u8()))) }

// done reports whether everything was read and was valid.
func (c *cursor) done() bool { return !c.bad && len(c.b) == 0 }

var le = binary.LittleEndian

// appendI64 appends v in two's complement.
func appendI64(b []byte, v int64) []byte {
	return binary.LittleEndian.AppendUint64(b, uint64(v)) //nolint:gosec // the same bits
}

// appendU32 appends a size or count that the caller has checked.
func appendU32(b []byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(b, uint32(n)) //nolint:gosec // bounded by the caller
}

// appendStr appends s, of at most 255 bytes, behind its length in one byte.
func appendStr(b []byte, s string) []byte {
	if len(s) > 255 {
		panic(fmt.Sprintf("dumpdir: string of %d bytes was not bounded", len(s)))
	}
	return append(append(b, byte(len(s))), s...) //nolint:gosec // checked above
}
