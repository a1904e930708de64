package protocol

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// dumpIDLen is the length of a dump id in hex digits.
const dumpIDLen = 32

// DumpID returns the id of a dump: the first 128 bits of the SHA-256 of the text "corehaul dump 1", a zero byte, and
// then vmcoreinfo, notes and machine id, each after its length as u64 little-endian, in lower-case hex. All three may
// be empty. The id depends on the crashed machine alone, so a restarted sender computes the same one.
//
// It is no secret and no proof: a receiver separates the ids of different hosts.
func DumpID(vmcoreinfo, notes, machineID []byte) string {
	h := sha256.New()
	_, _ = h.Write([]byte("corehaul dump 1\x00")) // hashes never fail
	for _, part := range [][]byte{vmcoreinfo, notes, machineID} {
		_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(part))))
		_, _ = h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil)[:dumpIDLen/2])
}
