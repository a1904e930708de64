package dumpdir

import (
	"errors"
	"io"

	"github.com/corehaul/corehaul/mem"
)

// maxBroken bounds the list of broken places in a journal.
const maxBroken = 1000

// loader reads a journal once, from start to end.
type loader struct {
	*journal
	s     *scanner
	runs  runDecoder
	where ramCursor // RAM, where runs must lie
	notes int       // bytes and ranges still to come
	ram   int
	chunk chunkRecord
	each  func(c *chunkRecord, at int64) error
}

// loadJournal reads the journal in the first size bytes of r. It calls each, if not nil, with every chunk and the
// offset of its record. It skips and notes broken places behind the plan. Ident and plan must be intact. Errors are a
// *DamageError, match ErrUnsupported, or come from r or each.
func loadJournal(r io.ReaderAt, size int64, each func(c *chunkRecord, at int64) error) (*journal, error) {
	l := &loader{
		journal: &journal{r: r, size: size, have: newSeqSet(), count: newCounts()},
		s:       newScanner(r, size), each: each,
	}
	if size < journalHeaderLen {
		return nil, journalDamage(0, "%d bytes are no journal", size)
	}
	head, err := l.s.window(0, journalHeaderLen)
	if err != nil {
		return nil, err
	}
	if l.version, err = checkJournalHeader(head); err != nil {
		return nil, err
	}
	l.end, l.body = journalHeaderLen, journalHeaderLen
	if err := l.readAll(); err != nil {
		return nil, err
	}
	if l.ident.id == "" {
		return nil, journalDamage(journalHeaderLen, "no ident record")
	}
	return l.journal, nil
}

func (l *loader) readAll() error {
	for off := l.end; ; {
		rec, err := l.s.at(off)
		switch {
		case errors.Is(err, io.EOF):
			return l.atEnd()
		case errors.Is(err, errBroken):
			next, err := l.skipBroken(off)
			if err != nil || next == l.size {
				return err
			}
			off = next
			continue
		case err != nil:
			return err
		}
		if err := l.apply(&rec); err != nil {
			return err
		}
		off = rec.end()
		l.end = off
	}
}

func (l *loader) atEnd() error {
	if l.facts != nil && l.plan == nil {
		return journalDamage(l.size, "the plan does not end")
	}
	return nil
}

// skipBroken notes a place without an intact record and returns its end.
func (l *loader) skipBroken(off int64) (int64, error) {
	if l.ident.id == "" || l.facts != nil && l.plan == nil {
		return 0, journalDamage(off, "broken record before the end of the plan")
	}
	next, found, err := l.s.resync(off)
	if err != nil {
		return 0, err
	}
	if !found {
		if l.size-off > maxBatch {
			return 0, journalDamage(off, "no intact record within %d bytes", maxBatch)
		}
		next = l.size
	}
	if len(l.broken) == maxBroken {
		return 0, journalDamage(off, "more than %d broken places", maxBroken)
	}
	l.broken = append(l.broken, span{off, next})
	return next, nil
}

// apply applies one intact record.
func (l *loader) apply(rec *record) error {
	if l.seal != nil && rec.typ != recReopen {
		return journalDamage(rec.off, "%v record behind the seal", rec.typ)
	}
	inPlan := l.facts != nil && l.plan == nil
	ok := true
	switch rec.typ {
	case recIdent:
		if l.end != journalHeaderLen {
			return journalDamage(rec.off, "second ident record")
		}
		l.ident, ok = decodeIdent(rec.payload)
		l.body = rec.end()
	case recLog:
		var log logRecord
		log, ok = decodeLog(rec.payload)
		l.log, ok = &log, ok && !inPlan
	case recFacts, recNotes, recRAM, recRuns, recPlanEnd:
		return l.applyPlan(rec, inPlan)
	case recChunk:
		return l.applyChunk(rec)
	case recSeal:
		var seal sealRecord
		seal, ok = decodeSeal(rec.payload)
		l.seal, ok = &seal, ok && !inPlan
	case recReopen:
		ok = len(rec.payload) == 0 && l.seal != nil && l.seal.state != StateComplete
		l.seal, l.reopened = nil, l.seal
	}
	if !ok || l.ident.id == "" {
		return journalDamage(rec.off, "%v record that makes no sense there", rec.typ)
	}
	return nil
}

// applyPlan applies the records of the plan. Each comes once, in a fixed order.
func (l *loader) applyPlan(rec *record, inPlan bool) error {
	ok := inPlan
	switch rec.typ {
	case recFacts:
		ok = l.facts == nil && l.ident.id != "" && l.count.chunks == 0
		if ok {
			var f Facts
			f, l.notes, l.ram, ok = decodeFacts(rec.payload, l.version)
			l.facts, l.runs = &f, runDecoder{limit: f.MaxPFN}
		}
	case recNotes:
		ok = ok && len(rec.payload) <= l.notes
		if ok {
			l.facts.Notes = append(l.facts.Notes, rec.payload...)
			l.notes -= len(rec.payload)
		}
	case recRAM:
		ok = ok && l.notes == 0 && l.applyRAM(rec.payload)
	case recRuns:
		ok = ok && l.notes == 0 && l.ram == 0
		if ok {
			if l.runsAt == 0 {
				l.runsAt, l.where = rec.off, newRAMCursor(l.facts)
			}
			more, err := l.runs.piece(rec.payload, l.where.holds)
			ok = more && err == nil
		}
	case recPlanEnd:
		ok = ok && l.notes == 0 && l.ram == 0 && l.applyPlanEnd(rec)
	}
	if !ok {
		return journalDamage(rec.off, "%v record that makes no sense there", rec.typ)
	}
	return nil
}

func (l *loader) applyRAM(p []byte) bool {
	c := cursor{b: p}
	for len(c.b) > 0 && !c.bad {
		if l.ram == 0 {
			return false
		}
		l.ram--
		l.facts.RAM = append(l.facts.RAM, mem.Range{Start: mem.PhysAddr(c.u64()), End: mem.PhysAddr(c.u64())})
	}
	return c.done() && l.facts.checkLists() == nil
}

func (l *loader) applyPlanEnd(rec *record) bool {
	info, ok := decodePlanEnd(rec.payload, l.version)
	f := l.facts
	info.PageSize, info.MaxPFN, info.DumpLevel = f.PageSize, f.MaxPFN, f.DumpLevel
	if !ok || info.Pages != l.runs.pages || info.Runs != l.runs.runs || info.check() != nil {
		return false
	}
	layout, err := f.header().Layout(info.Pages)
	if err != nil || info.DataOffset < layout.Data || info.DataOffset%int64(f.PageSize) != 0 || info.DataOffset > layout.Data+maxDataSlack {
		return false
	}
	if l.runsAt == 0 {
		l.runsAt = rec.off
	}
	l.plan, l.body, l.dataEnd = &info, rec.end(), info.firstPage()
	return true
}

func (l *loader) applyChunk(rec *record) error {
	if l.plan == nil {
		return journalDamage(rec.off, "chunk record before the plan")
	}
	c := &l.chunk
	if err := c.decode(rec.payload, l.plan); err != nil {
		return journalDamage(rec.off, "%v", err)
	}
	if c.offset < l.dataEnd {
		return journalDamage(rec.off, "chunk %d at offset %d overlaps data up to %d", c.seq, c.offset, l.dataEnd)
	}
	if !l.have.add(c.seq) {
		return journalDamage(rec.off, "second record of chunk %d", c.seq)
	}
	l.dataEnd = c.end()
	l.count.add(c.shape, c.pages)
	if l.each == nil {
		return nil
	}
	return l.each(c, rec.off)
}
