package protocol

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	headerLen = 12
	// magic is "ch" in the order of the bytes on the wire.
	magic = 0x6863
	// flagIgnorable marks a message that a peer skips if it does not know the type.
	flagIgnorable = 1 << 0
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the fixed part of a frame, little-endian:
//
//	0  u16  magic, bytes 63 68 ("ch")
//	2  u8   message type
//	3  u8   flags; bit 0: may be ignored when the type is not known; others 0
//	4  u32  payload length
//	8  u32  CRC-32C of bytes 0 to 7 and the payload
type header struct {
	typ    Type
	flags  uint8
	length uint32
	crc    uint32
}

// put writes h, with the checksum over it and the payload.
func (h header) put(dst []byte, payload ...[]byte) {
	binary.LittleEndian.PutUint16(dst, magic)
	dst[2], dst[3] = byte(h.typ), h.flags
	binary.LittleEndian.PutUint32(dst[4:], h.length)
	binary.LittleEndian.PutUint32(dst[8:], checksum(dst[:8], payload...))
}

func checksum(head []byte, payload ...[]byte) uint32 {
	crc := crc32.Checksum(head, castagnoli)
	for _, p := range payload {
		crc = crc32.Update(crc, castagnoli, p)
	}
	return crc
}

// parseHeader checks everything that it can before the payload arrives. It refuses a length above the limit of the
// type.
func parseHeader(b []byte, from Side) (header, error) {
	h := header{
		typ: Type(b[2]), flags: b[3],
		length: binary.LittleEndian.Uint32(b[4:]),
		crc:    binary.LittleEndian.Uint32(b[8:]),
	}
	info, known := types[h.typ]
	switch {
	case binary.LittleEndian.Uint16(b) != magic:
		return h, Errorf(CodeBadFrame, "no frame begins with bytes % x: not a corehaul peer, or the stream is damaged", b[:4])
	case h.flags&^flagIgnorable != 0:
		return h, Errorf(CodeBadFrame, "%s: reserved flags %#02x", h.typ, h.flags)
	case !known && h.flags&flagIgnorable == 0:
		return h, Errorf(CodeUnknownType, "%s is not known", h.typ)
	case !known && h.length > maxIgnored:
		return h, Errorf(CodeTooLarge, "%s: %d bytes above %d", h.typ, h.length, maxIgnored)
	case known && info.from&(1<<from) == 0:
		return h, Errorf(CodeOutOfOrder, "%s from a %s", h.typ, from)
	case known && h.length > info.limit:
		return h, Errorf(CodeTooLarge, "%s: %d bytes above %d", h.typ, h.length, info.limit)
	}
	return h, nil
}
