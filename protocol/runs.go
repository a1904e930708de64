package protocol

import (
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/corehaul/corehaul/mem"
)

// tierBits is the part of a run's second number that holds the tier.
const tierBits = 3

// maxSeq is the highest chunk number: no plan has more chunks than page frames.
const maxSeq = MaxPFN - 1

// Run is a run of kept pages of one tier.
type Run struct {
	mem.Extent
	Tier uint8
}

// PlanSum is the totals of a plan, and the hash for PLANEND, after all runs.
//
// The hash is XXH3-128 of 40 bytes of parameters ("corehaul plan 1" and a zero
// byte, page size u32, chunk pages u32, max_pfn u64, level u64, little-endian)
// and all PLAN payloads one after the other. Equal hashes mean the same pages
// under the same chunk numbers.
type PlanSum struct {
	Hash PlanHash
	Runs uint64
	// Kept counts the pages of the plan, Pages those of each tier.
	Kept  uint64
	Pages [MaxTiers]uint64

	chunkPages uint64
}

// Chunks returns the number of chunks of the plan.
func (s *PlanSum) Chunks() uint64 {
	n := uint64(0)
	for tier := range s.Pages {
		n += s.TierChunks(tier)
	}
	return n
}

// TierChunks returns the number of chunks of one tier. Each tier begins a new chunk.
func (s *PlanSum) TierChunks(tier int) uint64 {
	if s.chunkPages == 0 {
		return 0
	}
	return (s.Pages[tier] + s.chunkPages - 1) / s.chunkPages
}

// Check returns an Error with CodePlanMismatch if end differs from s.
func (s *PlanSum) Check(end *PlanEnd) error {
	switch {
	case end.Hash != s.Hash:
		return Errorf(CodePlanMismatch, "hash %s, the runs give %s", end.Hash, s.Hash)
	case end.Runs != s.Runs, end.Kept != s.Kept, end.Chunks != s.Chunks():
		return Errorf(CodePlanMismatch, "%d runs, %d pages, %d chunks; the runs give %d, %d, %d",
			end.Runs, end.Kept, end.Chunks, s.Runs, s.Kept, s.Chunks())
	}
	for tier, pages := range s.Pages {
		if got := end.tier(tier); got.Pages != pages || got.Chunks != s.TierChunks(tier) {
			return Errorf(CodePlanMismatch, "tier %d: %d pages in %d chunks, the runs give %d in %d",
				tier, got.Pages, got.Chunks, pages, s.TierChunks(tier))
		}
	}
	return nil
}

// planSummer computes the totals of a plan.
type planSummer struct {
	params Params
	sum    PlanSum
	hash   *xxh3.Hasher
	next   mem.PFN // end of the last run
	last   uint8   // its tier
}

func newPlanSummer(p Params) planSummer {
	s := planSummer{params: p, hash: xxh3.New()}
	s.sum.chunkPages = uint64(ChunkPages(p.PageSize))
	head := append(make([]byte, 0, 40), "corehaul plan 1\x00"...)
	head = binary.LittleEndian.AppendUint32(head, p.PageSize)
	head = binary.LittleEndian.AppendUint32(head, ChunkPages(p.PageSize))
	head = binary.LittleEndian.AppendUint64(head, uint64(p.MaxPFN))
	head = binary.LittleEndian.AppendUint64(head, uint64(p.Level))
	s.write(head)
	return s
}

func (s *planSummer) write(p []byte) {
	_, _ = s.hash.Write(p) // a Hasher never fails
}

// check refuses a run that is empty, beyond max_pfn, before the last one, or a continuation of the last one.
func (s *planSummer) check(r Run) error {
	switch {
	case !r.Valid(s.params.MaxPFN):
		return Errorf(CodeBadMessage, "run of %d pages from pfn %d: empty or beyond max_pfn %d",
			r.Count, uint64(r.Start), uint64(s.params.MaxPFN))
	case r.Tier >= MaxTiers:
		return Errorf(CodeTooLarge, "tier %d above %d", r.Tier, MaxTiers-1)
	case s.sum.Runs == 0:
		return nil
	case r.Start < s.next:
		return Errorf(CodeBadMessage, "run from pfn %d begins before pfn %d", uint64(r.Start), uint64(s.next))
	case r.Start == s.next && r.Tier == s.last:
		return Errorf(CodeBadMessage, "run from pfn %d continues the last one", uint64(r.Start))
	}
	return nil
}

func (s *planSummer) add(r Run) {
	s.sum.Runs++
	s.sum.Kept += r.Count
	s.sum.Pages[r.Tier] += r.Count
	s.next, s.last = r.End(), r.Tier
}

func (s *planSummer) result() PlanSum {
	sum := s.sum
	sum.Hash = s.hash.Sum128().Bytes()
	return sum
}

// RunEncoder encodes the runs of a plan into PLAN payloads. It holds one piece, whatever the length of the plan.
//
// A run is two numbers as shortest LEB128: the frames between the end of the last run (or frame 0) and its start, and
// its length times 8 plus its tier. Runs ascend. A run that touches the one before has another tier. A piece has
// whole runs.
type RunEncoder struct {
	planSummer
	emit    func(piece []byte) error
	buf     []byte
	pending Run
	err     error
}

// NewRunEncoder returns an encoder for a dump with the given parameters. It passes each piece to emit, which must not
// keep it. emit may be nil if only the totals are wanted.
func NewRunEncoder(p Params, emit func(piece []byte) error) *RunEncoder {
	return &RunEncoder{planSummer: newPlanSummer(p), emit: emit, buf: make([]byte, 0, PieceBytes)}
}

// Add adds a run. Runs must ascend and not overlap. Add merges a run with the last one if it continues it in the same
// tier, and ignores an empty run. It repeats its first error.
func (e *RunEncoder) Add(r Run) error {
	if e.err != nil || r.Count == 0 {
		return e.err
	}
	if p := e.pending; p.Count > 0 && r.Tier == p.Tier && r.Start == p.End() {
		if _, carry := bits.Add64(p.Count, r.Count, 0); carry == 0 {
			e.pending.Count += r.Count
			return nil
		}
	}
	if e.err = e.flushRun(); e.err == nil {
		e.pending = r
	}
	return e.err
}

func (e *RunEncoder) flushRun() error {
	r := e.pending
	if r.Count == 0 {
		return nil
	}
	if err := e.check(r); err != nil {
		return err
	}
	gap, length := uint64(r.Start-e.next), r.Count<<tierBits|uint64(r.Tier)
	if len(e.buf)+uvarintLen(gap)+uvarintLen(length) > PieceBytes {
		if err := e.flushPiece(); err != nil {
			return err
		}
	}
	e.buf = binary.AppendUvarint(e.buf, gap)
	e.buf = binary.AppendUvarint(e.buf, length)
	e.add(r)
	e.pending = Run{}
	return nil
}

func (e *RunEncoder) flushPiece() error {
	if len(e.buf) == 0 {
		return nil
	}
	e.write(e.buf)
	piece := e.buf
	e.buf = e.buf[:0]
	if e.emit == nil {
		return nil
	}
	return e.emit(piece)
}

// Close passes the last piece to emit and returns the totals of the plan.
func (e *RunEncoder) Close() (PlanSum, error) {
	if e.err == nil {
		e.err = e.flushRun()
	}
	if e.err == nil {
		e.err = e.flushPiece()
	}
	if e.err != nil {
		return PlanSum{}, e.err
	}
	return e.result(), nil
}

// RunDecoder is the inverse of RunEncoder.
type RunDecoder struct {
	planSummer
	err error
}

// NewRunDecoder returns a decoder for a dump with the given parameters.
func NewRunDecoder(p Params) *RunDecoder { return &RunDecoder{planSummer: newPlanSummer(p)} }

// Decode passes the runs of the next piece to yield. It returns an Error if RunEncoder would not write such a piece,
// or yield's error. It repeats its first error.
func (d *RunDecoder) Decode(piece []byte, yield func(Run) error) error {
	if d.err == nil {
		d.err = d.decode(piece, yield)
	}
	return d.err
}

func (d *RunDecoder) decode(piece []byte, yield func(Run) error) error {
	c := cursor{what: "PLAN", b: piece}
	for c.left() > 0 {
		gap := c.upTo(MaxPFN, "gap")
		length := c.upTo(MaxPFN<<tierBits|(MaxTiers-1), "length")
		if c.err != nil {
			return c.err
		}
		r := Run{
			Extent: mem.Extent{Start: d.next + mem.PFN(gap), Count: length >> tierBits},
			Tier:   uint8(length & (MaxTiers - 1)),
		}
		if err := d.check(r); err != nil {
			return err
		}
		d.add(r)
		if err := yield(r); err != nil {
			return err
		}
	}
	d.write(piece)
	return nil
}

// Sum returns the totals of the runs decoded so far.
func (d *RunDecoder) Sum() PlanSum { return d.result() }

// Cutter cuts the kept pages of one tier into chunks: the n-th group of ChunkPages pages in ascending order. This
// alone defines chunk numbers.
type Cutter struct {
	pages   uint64
	emit    func(extents []mem.Extent) error
	extents []mem.Extent
	filled  uint64
}

// NewCutter returns a Cutter that passes the extents of each chunk to emit, which must not keep the slice.
func NewCutter(pageSize uint32, emit func(extents []mem.Extent) error) *Cutter {
	n := max(ChunkPages(pageSize), 1)
	return &Cutter{pages: uint64(n), emit: emit, extents: make([]mem.Extent, 0, n)}
}

// Add takes the next run of pages of the tier.
func (c *Cutter) Add(e mem.Extent) error {
	for e.Count > 0 {
		n := min(e.Count, c.pages-c.filled)
		c.extents = mem.AppendExtent(c.extents, mem.Extent{Start: e.Start, Count: n})
		c.filled += n
		e = e.Drop(n)
		if c.filled == c.pages {
			if err := c.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Flush passes the last, short chunk of the tier to emit, if there is one.
func (c *Cutter) Flush() error {
	if c.filled == 0 {
		return nil
	}
	extents := c.extents
	c.extents, c.filled = c.extents[:0], 0
	return c.emit(extents)
}
