package dumpdir

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/corehaul/corehaul/mem"
)

var le = binary.LittleEndian

// maxReason bounds the reason of a seal, in bytes.
const maxReason = 512

type identRecord struct{ id, host string }

func (r *identRecord) encode() []byte {
	return appendStr(appendStr(nil, r.id), r.host)
}

func decodeIdent(p []byte) (r identRecord, ok bool) {
	c := cursor{b: p}
	r = identRecord{id: c.str(), host: c.str()}
	return r, c.done() && ValidID(r.id) && r.host == clean(r.host, maxHost)
}

type logRecord struct {
	size int64
	sum  [32]byte // SHA-256
}

func (r *logRecord) encode() []byte {
	return append(le.AppendUint64(nil, uint64(r.size)), r.sum[:]...) //nolint:gosec // not negative
}

func decodeLog(p []byte) (r logRecord, ok bool) {
	c := cursor{b: p}
	r.size = c.offset()
	copy(r.sum[:], c.bytes(len(r.sum)))
	return r, c.done()
}

const (
	maxUtsField   = 64
	factBigEndian = 1 << 0
	// Since journal version 2:
	factExcludedVmemmap = 1 << 1
	factEraseinfo       = 1 << 2
)

// encodeFacts encodes f without notes and RAM, which follow in records of their own. It checks nothing.
func encodeFacts(f *Facts) []byte {
	var flags uint32
	for flag, set := range map[uint32]bool{factBigEndian: f.BigEndian, factExcludedVmemmap: f.ExcludedVmemmap, factEraseinfo: f.eraseinfo} {
		if set {
			flags |= flag
		}
	}
	b := le.AppendUint32(nil, uint32(f.PageSize)) //nolint:gosec // checked before
	b = le.AppendUint32(b, f.NrCPUs)
	b = le.AppendUint32(b, f.CurrentCPU)
	b = le.AppendUint32(b, f.Codecs)
	b = le.AppendUint64(b, uint64(f.MaxPFN))
	b = le.AppendUint64(b, f.PhysBase)
	b = le.AppendUint64(b, uint64(f.Time.Unix()))            //nolint:gosec // two's complement, read back the same way
	b = le.AppendUint32(b, uint32(f.Time.Nanosecond()/1000)) //nolint:gosec // below a million
	b = le.AppendUint32(b, uint32(f.DumpLevel))
	b = le.AppendUint32(b, flags)
	b = le.AppendUint32(b, uint32(len(f.Notes))) //nolint:gosec // at most MaxNotesLen
	b = le.AppendUint32(b, uint32(len(f.RAM)))   //nolint:gosec // at most MaxRAMRanges
	u := &f.Utsname
	for _, s := range []string{u.Sysname, u.Nodename, u.Release, u.Version, u.Machine, u.Domainname} {
		b = appendStr(b, s)
	}
	return b
}

// journalVersion is the lowest version that has a place for all of f.
func (f *Facts) journalVersion() uint16 {
	if f.ExcludedVmemmap || f.eraseinfo {
		return journalVersion2
	}
	return journalVersion1
}

// decodeFacts decodes what encodeFacts encoded, and the lengths of notes and RAM that follow.
func decodeFacts(p []byte, version uint16) (f Facts, notes, ram int, ok bool) {
	c := cursor{b: p}
	f.PageSize = int(c.u32())
	f.NrCPUs, f.CurrentCPU, f.Codecs = c.u32(), c.u32(), c.u32()
	f.MaxPFN = mem.PFN(c.u64())
	f.PhysBase = c.u64()
	sec, usec := int64(c.u64()), c.u32() //nolint:gosec // two's complement
	f.Time = time.Unix(sec, int64(usec)*1000).UTC()
	level, flags := c.u32(), c.u32()
	notes, ram = int(c.u32()), int(c.u32())
	u := &f.Utsname
	for _, s := range []*string{&u.Sysname, &u.Nodename, &u.Release, &u.Version, &u.Machine, &u.Domainname} {
		*s = c.str()
	}
	f.DumpLevel, f.BigEndian = uint8(level&0xff), flags&factBigEndian != 0
	f.ExcludedVmemmap, f.eraseinfo = flags&factExcludedVmemmap != 0, flags&factEraseinfo != 0
	known := uint32(factBigEndian)
	if version >= journalVersion2 {
		known |= factExcludedVmemmap | factEraseinfo
	}
	ok = c.done() && level <= maxDumpLevel && flags&^known == 0 && usec < 1e6 &&
		notes <= MaxNotesLen && ram <= MaxRAMRanges && f.check() == nil
	return f, notes, ram, ok
}

func encodePlanEnd(p *PlanInfo) []byte {
	b := le.AppendUint64(nil, p.Hash)
	b = le.AppendUint64(b, p.Chunks)
	b = le.AppendUint64(b, p.Pages)
	b = le.AppendUint64(b, p.Runs)
	return le.AppendUint64(b, uint64(p.DataOffset)) //nolint:gosec // not negative
}

func decodePlanEnd(p []byte) (info PlanInfo, ok bool) {
	c := cursor{b: p}
	info.Hash, info.Chunks, info.Pages, info.Runs = c.u64(), c.u64(), c.u64(), c.u64()
	info.DataOffset = c.offset()
	return info, c.done()
}

type sealRecord struct {
	state   State
	time    int64 // Unix seconds
	present uint64
	size    int64 // of vmcore
	sum     [32]byte
	reason  string
}

// sealFixedLen is the length of a seal's payload before the reason.
const sealFixedLen = 66

var sealStates = map[uint8]State{1: StateComplete, 2: StatePartial, 3: StateLogOnly}

func (r *sealRecord) encode() []byte {
	var code uint8
	for k, s := range sealStates {
		if s == r.state {
			code = k
		}
	}
	b := append([]byte{code}, make([]byte, 7)...)
	b = le.AppendUint64(b, uint64(r.time)) //nolint:gosec // two's complement
	b = le.AppendUint64(b, r.present)
	b = le.AppendUint64(b, uint64(r.size)) //nolint:gosec // not negative
	b = append(b, r.sum[:]...)
	b = le.AppendUint16(b, uint16(len(r.reason))) //nolint:gosec // at most maxReason
	return append(b, r.reason...)
}

func decodeSeal(p []byte) (r sealRecord, ok bool) {
	c := cursor{b: p}
	r.state = sealStates[c.u8()]
	c.zeros(7)
	r.time = int64(c.u64()) //nolint:gosec // two's complement
	r.present, r.size = c.u64(), c.offset()
	copy(r.sum[:], c.bytes(len(r.sum)))
	r.reason = string(c.bytes(int(c.u16())))
	return r, c.done() && r.state != "" && r.reason == clean(r.reason, maxReason)
}

// appendStr appends s, of at most 255 bytes, behind its length in one byte.
func appendStr(b []byte, s string) []byte {
	if len(s) > 255 {
		panic(fmt.Sprintf("dumpdir: string of %d bytes was not bounded", len(s)))
	}
	return append(append(b, byte(len(s))), s...) //nolint:gosec // checked above
}
