package dumpcopy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
)

// idSamples is how many pages are read for an id. Dumps of one machine may have the same notes, or none.
const idSamples = 32

// ID returns a dump id that is a function of what the file holds: the notes, which pages, and the contents of some of them. It does not
// depend on the name of the file, its times, its compressor, or whether it is flattened. A file that lacks pages has another id than the
// whole one.
func (s *Source) ID() (string, error) {
	end, err := s.walkPlan(func(mem.Extent) error { return nil })
	if err != nil {
		return "", err
	}
	info, h := s.img.Info(), sha256.New()
	_, _ = fmt.Fprintf(h, "file\x00%d\x00%d\x00%x\x00%d\x00", info.PageSize, info.MaxPFN, end.Hash, s.account.Held) // a hash takes everything
	_, _ = h.Write(info.Notes)
	err = s.sample(func(page []byte) { _, _ = h.Write(page) })
	return hex.EncodeToString(h.Sum(nil)[:16]), err
}

// sample calls fn for pages that are spread over those that the file holds, nil for one that cannot be read. Errors are those of the medium.
func (s *Source) sample(fn func(page []byte)) error {
	page := make([]byte, s.img.Info().PageSize)
	step := max(1, s.account.Held/idSamples)
	next, at := uint64(0), uint64(0)
	for e, err := range vmcore.HeldPages(s.img) {
		if err != nil {
			return err
		}
		for ; next < at+e.Count; next += step {
			switch err := s.img.ReadPage(page, e.Start+mem.PFN(next-at)); {
			case err == nil:
				fn(page)
			case OfDump(err):
				fn(nil)
			default:
				return err
			}
		}
		at += e.Count
	}
	return nil
}
