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

// sampledPages is how many pages stand for the memory of a dump in its id: 4 MiB of pages of 4 KiB.
const sampledPages = 1024

// dumpID names the dump. VMCOREINFO and the notes tell crashes apart by the registers of the CPUs and by CRASHTIME. A file may
// have neither: then a second crash of the same machine would pass for the first one, and what its memory holds has to tell.
func (s *Source) dumpID(machineID []byte) string {
	info := s.info
	notes := info.Notes
	if _, timed := info.VMCOREINFO.CrashTime(); !timed && len(info.CPUs) == 0 {
		_ = catchPanic(func() error { // without a sample the dump is named as well as can be
			notes = append(slices.Clone(notes), s.sample()...)
			return nil
		})()
	}
	return protocol.DumpID(info.VMCOREINFO.Raw(), notes, machineID)
}

// sample is a hash over what the headers say and over pages from all of the memory. It is a pure function of the file. A page
// that cannot be read counts by its number.
func (s *Source) sample() []byte {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%v %v %d %d %v\n", s.info.Utsname, s.info.Timestamp.UnixMicro(), s.info.PageSize, s.info.MaxPFN, s.image.RAM()) // hashes never fail
	step := max(s.account.Planned/sampledPages, 1)
	at := uint64(0) // pages before the next one that counts
	for e, err := range vmcore.HeldPages(s.image) {
		if err != nil {
			break // met again where the plan is made
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
