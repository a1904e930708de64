package protocol

import (
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/corehaul/corehaul/mem"
)

// rule says when a message may come. In each direction messages come in the order of their rank.
type rule struct {
	rank int
	// once: the message may come once.
	once bool
	// after must have passed before, in either direction; 0 for none.
	after Type
}

var rules = map[Type]rule{
	TypeHello:   {rank: 1, once: true},
	TypeNotes:   {rank: 2, after: TypeHello},
	TypeRAM:     {rank: 3, after: TypeHello},
	TypeLog:     {rank: 4, after: TypeHello},
	TypeLogEnd:  {rank: 5, once: true, after: TypeHello},
	TypePlan:    {rank: 6, after: TypeWelcome},
	TypePlanEnd: {rank: 7, once: true, after: TypeWelcome},
	TypeChunk:   {rank: 8, after: TypePlanOK},
	TypeFinish:  {rank: 9, once: true, after: TypeLogEnd},

	TypeLogStored: {rank: 1, once: true, after: TypeLogEnd},
	TypeWelcome:   {rank: 2, once: true, after: TypeLogStored},
	TypePlanOK:    {rank: 3, once: true, after: TypePlanEnd},
	TypeAck:       {rank: 4, after: TypePlanOK},
	TypeSealed:    {rank: 5, once: true, after: TypeLogStored},
}

// order checks the messages of both directions. It refuses those that may not come now or exceed a total. It is the
// state machine of PROTOCOL.md.
type order struct {
	mu     sync.Mutex
	rank   [2]int // of the last message of each side
	seen   map[Type]bool
	params Params
	// versions that the sender offered: lowest and highest.
	versions [2]int
	agreed   Encodings
	only     Collect // of WELCOME
	chunks   uint64

	notes, log uint64
	logSum     *xxh3.Hasher
	ranges     int
	ramEnd     mem.PhysAddr
}

func newOrder() *order {
	return &order{seen: make(map[Type]bool), logSum: xxh3.New()}
}

// pass records a message of one side, or refuses it and changes nothing.
func (o *order) pass(from Side, m Message) error {
	t := m.Type()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.inTurn(from, t); err != nil {
		return err
	}
	if err := o.within(m); err != nil {
		return err
	}
	if r, ok := rules[t]; ok {
		o.rank[from], o.seen[t] = r.rank, true
	}
	return nil
}

func (o *order) inTurn(from Side, t Type) error {
	if types[t].from&(1<<from) == 0 {
		return Errorf(CodeOutOfOrder, "%s from a %s", t, from)
	}
	r, ok := rules[t]
	switch {
	case !ok: // WAIT, PING, PONG, ERROR
		return nil
	case r.rank < o.rank[from], r.once && r.rank == o.rank[from]:
		return Errorf(CodeOutOfOrder, "%s too late", t)
	case r.after != 0 && !o.seen[r.after]:
		return Errorf(CodeOutOfOrder, "%s before %s", t, r.after)
	case o.only == CollectLog && (t == TypePlan || t == TypePlanEnd):
		return Errorf(CodeOutOfOrder, "%s, but only the log is wanted", t)
	}
	return nil
}

// within checks totals, and fields that must agree with another message.
func (o *order) within(m Message) error {
	switch m := m.(type) {
	case *Hello:
		o.params, o.versions = m.Params(), [2]int{m.Version, m.MaxVersion}
	case *Notes:
		return total(&o.notes, uint64(len(m.Data)), MaxNotesBytes, "notes")
	case *RAM:
		return o.ram(m.Ranges)
	case *Log:
		err := total(&o.log, uint64(len(m.Data)), MaxLogBytes, "log")
		if err == nil {
			_, _ = o.logSum.Write(m.Data) // a Hasher never fails
		}
		return err
	case *LogEnd:
		if m.Bytes != o.log || uint64(m.Sum) != o.logSum.Sum64() {
			return Errorf(CodeBadLog, "%d bytes with checksum %016x, got %d with %016x",
				m.Bytes, uint64(m.Sum), o.log, o.logSum.Sum64())
		}
	case *Welcome:
		if m.Version < o.versions[0] || m.Version > min(o.versions[1], Version) {
			return Errorf(CodeVersion, "WELCOME names version %d, wanted was %d to %d", m.Version, o.versions[0], o.versions[1])
		}
		o.agreed, o.only = m.Encodings, m.Collect
	case *PlanEnd:
		o.chunks = m.Chunks
	case *Chunk:
		return o.chunk(m)
	}
	return nil
}

func (o *order) chunk(m *Chunk) error {
	switch {
	case m.Seq >= o.chunks:
		return Errorf(CodeNotPlanned, "chunk %d of a plan with %d", m.Seq, o.chunks)
	case !o.agreed.Has(m.Encoding):
		return Errorf(CodeBadEncoding, "chunk %d: %s was not agreed on", m.Seq, m.Encoding)
	}
	return nil
}

func (o *order) ram(ranges []mem.Range) error {
	if len(ranges) == 0 || ranges[0].Start < o.ramEnd {
		return Errorf(CodeBadMessage, "RAM: empty, or not after the last piece")
	}
	if o.ranges+len(ranges) > MaxRAMRanges {
		return Errorf(CodeTooLarge, "more than %d ranges of RAM", MaxRAMRanges)
	}
	o.ranges += len(ranges)
	o.ramEnd = ranges[len(ranges)-1].End
	return nil
}

func total(sum *uint64, n, limit uint64, name string) error {
	if *sum+n > limit {
		return Errorf(CodeTooLarge, "%s of more than %d bytes", name, limit)
	}
	*sum += n
	return nil
}

// facts returns the parameters of the dump after HELLO.
func (o *order) facts() (Params, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.params, o.seen[TypeHello]
}
