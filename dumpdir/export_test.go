package dumpdir

import "bytes"

// HashBlock is how much of a file is hashed at once.
const HashBlock = hashBlock

// HashFile returns length and SHA-256 of a file.
var HashFile = hashFile

// JournalMaxPFN returns max_mapnr of the plan in a journal, with its checksums put right first; 0 when it does not load.
func JournalMaxPFN(b []byte) uint64 {
	fixSums(b)
	j, err := loadJournal(bytes.NewReader(b), int64(len(b)), nil)
	if err != nil || j.plan == nil {
		return 0
	}
	return uint64(j.plan.MaxPFN)
}
