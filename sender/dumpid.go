package sender

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/vmcore"
)

// sampledPages is how many pages are hashed for a dump id: 4 MiB of pages of 4 KiB.
const sampledPages = 1024

// dumpID computes the dump id. The registers of the CPUs in the notes and CRASHTIME in VMCOREINFO distinguish crashes of
// one machine. If a file has neither, the id also depends on a sample of its memory.
func (s *Source) dumpID(machineID []byte) string {
	info := s.info
	notes := info.Notes
	if _, timed := info.VMCOREINFO.CrashTime(); !timed && len(info.CPUs) == 0 {
		_ = catchPanic(func() error { // after a panic, the id has no sample
			notes = append(slices.Clone(notes), s.sample()...)
			return nil
		})()
	}
	return protocol.DumpID(info.VMCOREINFO.Raw(), notes, machineID)
}

// sample hashes header facts and evenly spaced pages. It is a pure function of the file. Of a page that cannot be read, it
// hashes the page frame number only.
func (s *Source) sample() []byte {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%v %v %d %d %v\n", s.info.Utsname, s.info.Timestamp.UnixMicro(), s.info.PageSize, s.info.MaxPFN, s.image.RAM()) // hashes never fail
	step := max(s.account.Planned/sampledPages, 1)
	at := uint64(0) // pages before the next page to hash
	for e, err := range vmcore.HeldPages(s.image) {
		if err != nil {
			break // the plan meets this error again
		}
		for ; at < e.Count; at += step {
			s.addPage(h, e.Start+mem.PFN(at))
		}
		at -= e.Count
	}
	return h.Sum(nil)
}

// addPage adds a page frame and its contents to h.
func (s *Source) addPage(h hash.Hash, pfn mem.PFN) {
	page := make([]byte, s.info.PageSize)
	if err := s.image.ReadPage(page, pfn); err != nil {
		page = nil
	}
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(pfn)))
	_, _ = h.Write(page)
}
