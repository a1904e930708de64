// Package flattened reads makedumpfile's flattened format, the stream that makedumpfile -F writes into a pipe.
//
// makedumpfile's IMPLEMENTATION file describes it: a header of 4096 bytes, then records of a file offset, a size and
// that many bytes, all integers big-endian signed 64-bit, until a record header of -1 and -1. Records are not in file
// order. If the same offset is written twice, the last write wins. Bytes without a record are zero. Inside is a
// kdump-compressed file or an ELF core.
//
// [File] presents the inner file without rearranging it. [Assembler] rearranges a stream that is written to it,
// [Reassemble] a stream that it reads. All are safe for hostile input: no size of the stream decides an allocation,
// the index of a File is bounded (larger dumps have to be reassembled), and an Assembler has [Limits]. A File is safe
// for concurrent use, an Assembler is not.
package flattened

import (
	"encoding/binary"

	"github.com/corehaul/corehaul/vmcore"
)

// Signature begins a flattened file; NULs follow up to 16 bytes.
const Signature = "makedumpfile"

const (
	headerLen    = 4096
	signatureLen = 16
	recordLen    = 16 // of a record header
	typeFlat     = 1
	versionFlat  = 1
)

// Limits.
const (
	// MaxFileSize bounds offsets in the reassembled file: beyond any dump, and sums do not overflow.
	MaxFileSize = 1 << 60
	// MaxRecords bounds the index of a File: 24 bytes each, twice that during New. makedumpfile's records have up to
	// 64 KiB, so this is a dump of 256 GiB.
	MaxRecords = 4 << 20
)

// record is a record header.
type record struct{ off, size int64 }

func (r record) end() bool { return r.off == -1 && r.size == -1 }

// decodeRecord decodes and checks the record header b, which is at stream offset at.
func decodeRecord(b []byte, at int64) (record, error) {
	r := record{off: int64At(b), size: int64At(b[8:])}
	switch {
	case r.end():
	case r.off < 0 || r.off > MaxFileSize:
		return r, vmcore.Corruptf("flattened record", at, "offset %d", r.off)
	case r.size <= 0 || r.size > MaxFileSize-r.off:
		return r, vmcore.Corruptf("flattened record", at, "size %d at offset %d", r.size, r.off)
	}
	return r, nil
}

func int64At(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) } //nolint:gosec // the same bits

// checkHeader checks the first 32 bytes of a stream.
func checkHeader(b []byte) error {
	if string(b[:len(Signature)]) != Signature {
		return vmcore.ErrUnknownFormat
	}
	typ, version := binary.BigEndian.Uint64(b[signatureLen:]), binary.BigEndian.Uint64(b[signatureLen+8:])
	if typ != typeFlat || version != versionFlat {
		return vmcore.Unsupportedf("flattened header", signatureLen, "type %d version %d", typ, version)
	}
	return nil
}
