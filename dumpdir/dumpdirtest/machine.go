package dumpdirtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/uts"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Machine is a small generated machine, and the dump that a sender would make of it.
type Machine struct {
	Meta   dumpdir.Meta
	Log    []byte
	Facts  dumpdir.Facts
	Runs   []mem.Extent
	End    dumpdir.PlanEnd
	Chunks []dumpdir.Chunk

	seed  uint64
	pages map[mem.PFN][]byte // that were planned
}

// NewMachine makes a machine with a number of kept pages of 4 KiB, in chunks of chunkPages. The same arguments give the
// same machine.
func NewMachine(seed uint64, pages, chunkPages int) *Machine {
	return NewMachineAt(seed, pages, chunkPages, 0)
}

// NewMachineAt is NewMachine with the memory above 1 MiB moved up by base frames.
func NewMachineAt(seed uint64, pages, chunkPages int, base mem.PFN) *Machine {
	m := &Machine{seed: seed, pages: map[mem.PFN][]byte{}}
	m.Meta = dumpdir.Meta{
		ID: fmt.Sprintf("%032x", seed+1), Host: "node1", Release: "6.1.0-test", Nodename: "node1.example", Machine: "x86_64",
		PanicLine: "Kernel panic - not syncing: test", CrashTime: time.Unix(1700000000, 0).UTC(),
		StartTime: time.Unix(1700000010, 0).UTC(), Transport: "tls", Peer: "192.0.2.1:4711", Sender: "corehaul-send test", Receiver: "corehaul test",
	}
	m.Log = []byte("[    0.000000] Linux version 6.1.0-test\n[    9.000000] Kernel panic - not syncing: test\n")
	m.plan(pages, base+256)
	m.Facts = dumpdir.Facts{
		Utsname: uts.Name{Sysname: "Linux", Nodename: "node1.example", Release: "6.1.0-test", Version: "#1", Machine: "x86_64"},
		Time:    m.Meta.CrashTime, PageSize: 4096, MaxPFN: max(m.Runs[len(m.Runs)-1].End(), base+300) + 9, NrCPUs: 2, CurrentCPU: 1,
		PhysBase: 0x1000000, DumpLevel: 31, Codecs: dumpdir.PageSnappy | dumpdir.PageZstd, Notes: notes(),
		RAM: []mem.Range{{Start: 0, End: 0x9f000}, {Start: (base + 256).Addr(12)}},
	}
	m.Facts.RAM[1].End = m.Facts.MaxPFN.Addr(12)
	m.chunk(chunkPages)
	m.End = dumpdir.PlanEnd{
		Chunks: uint64(len(m.Chunks)), Pages: uint64(pages),
		Classes: map[string]uint64{"kernel": uint64(pages)},
	}
	binary.BigEndian.PutUint64(m.End.Hash[:8], seed*0x9e3779b97f4a7c15+1)
	if seed%2 == 0 { // half of the machines have a whole hash, half are as those of older journals
		binary.BigEndian.PutUint64(m.End.Hash[8:], seed+1)
	}
	return m
}

// notes returns a PT_NOTE with VMCOREINFO.
func notes() []byte {
	desc := "OSRELEASE=6.1.0-test\nPAGESIZE=4096\nCRASHTIME=1700000000\n"
	b := binary.LittleEndian.AppendUint32(nil, 11)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = append(b, "VMCOREINFO\x00\x00"...)
	b = append(b, desc...)
	return append(b, make([]byte, (4-len(desc)%4)%4)...)
}

// plan scatters the pages over runs of 1 to 9, some below the hole at 640 KiB, the others from frame above on.
func (m *Machine) plan(pages int, above mem.PFN) {
	rnd := rand.New(rand.NewPCG(m.seed, 1))
	for at := mem.PFN(1); pages > 0; {
		n := min(1+rnd.IntN(9), pages)
		if at < 256 && int(at)+n > 150 {
			at = above
		}
		m.Runs = append(m.Runs, mem.Extent{Start: at, Count: uint64(n)})
		at += mem.PFN(n + rnd.IntN(4))
		pages -= n
	}
}

// Page returns the contents of a page frame. They are read-only. One page in five is zero. Most others compress.
func (m *Machine) Page(pfn mem.PFN) []byte {
	if page, ok := m.pages[pfn]; ok {
		return page
	}
	return m.makePage(pfn)
}

func (m *Machine) makePage(pfn mem.PFN) []byte {
	rnd := rand.New(rand.NewPCG(m.seed, uint64(pfn)))
	page := make([]byte, m.Facts.PageSize)
	kind := rnd.IntN(5)
	if kind == 0 {
		return page
	}
	random := len(page) / 16
	if kind == 1 {
		random = len(page)
	}
	for i := 0; i < random; i += 8 {
		binary.LittleEndian.PutUint64(page[i:], rnd.Uint64())
	}
	page[0] |= 1
	return page
}

// chunk groups the planned pages in send order, which is not that of the plan: a part of its end comes first.
func (m *Machine) chunk(chunkPages int) {
	var pfns []mem.PFN
	for _, e := range m.Runs {
		for pfn := e.Start; pfn < e.End(); pfn++ {
			pfns = append(pfns, pfn)
		}
	}
	cut := len(pfns) * 2 / 3
	for _, tier := range [][]mem.PFN{pfns[cut:], pfns[:cut]} {
		for len(tier) > 0 {
			n := min(chunkPages, len(tier))
			m.Chunks = append(m.Chunks, m.encode(uint64(len(m.Chunks)), tier[:n]))
			tier = tier[n:]
		}
	}
}

func (m *Machine) encode(seq uint64, pfns []mem.PFN) dumpdir.Chunk {
	c := dumpdir.Chunk{Seq: seq}
	sum := xxh3.New()
	codecs := []kdumpfile.Codec{kdumpfile.Snappy, kdumpfile.Zstd, kdumpfile.Raw}
	enc, err := kdumpfile.NewEncoder(codecs[seq%3], 0)
	if err != nil {
		panic(err)
	}
	for _, pfn := range pfns {
		page := m.makePage(pfn)
		m.pages[pfn] = page
		kind := chunk.Data
		if len(bytes.Trim(page, "\x00")) == 0 {
			kind = chunk.Zero
		} else {
			_, _ = sum.Write(page) // a hash takes everything
			stored, flags := enc.EncodePage(nil, page)
			c.Pages = append(c.Pages, dumpdir.PageRecord{Size: uint32(len(stored)), Flags: flags})
			c.Data = append(c.Data, stored...)
		}
		c.Extents = chunk.AppendPage(c.Extents, pfn, kind)
	}
	c.RawSum = sum.Sum64()
	return c
}

// SetPlan passes the whole plan to a writer.
func (m *Machine) SetPlan(w *dumpdir.Writer) error {
	b, err := w.StartPlan(m.Facts)
	if err != nil {
		return err
	}
	for _, e := range m.Runs {
		if err := b.Add(e); err != nil {
			return err
		}
	}
	return b.Finish(m.End)
}

// OpenVMCore opens the vmcore of a dump in fsys, complete or not.
func OpenVMCore(fsys dumpdir.FS, d *dumpdir.Dump) (dumpdir.File, error) {
	name, ok := d.VMCorePath()
	if !ok {
		return nil, fs.ErrNotExist
	}
	return fsys.Open(name)
}

// CheckPages compares every page of a sealed or arriving vmcore with the machine. Pages of chunks that are not in have may
// be excluded or incomplete. It returns the number of pages that it found.
func (m *Machine) CheckPages(f dumpdir.File, have []chunk.SeqRange) (int, error) {
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	r, err := kdumpfile.New(f, size)
	if err != nil {
		return 0, err
	}
	there, page := 0, make([]byte, m.Facts.PageSize)
	for i := range m.Chunks {
		for _, e := range m.Chunks[i].Extents {
			for pfn := e.Start; pfn < e.End(); pfn++ {
				err := r.ReadPage(page, pfn)
				if err != nil && Contains(have, m.Chunks[i].Seq) {
					return there, fmt.Errorf("pfn %d of chunk %d: %w", pfn, i, err)
				}
				if err != nil {
					continue
				}
				if !bytes.Equal(page, m.Page(pfn)) {
					return there, fmt.Errorf("pfn %d of chunk %d has other contents", pfn, i)
				}
				there++
			}
		}
	}
	return there, nil
}

// Contains reports whether seq is in one of the ranges.
func Contains(ranges []chunk.SeqRange, seq uint64) bool {
	for _, r := range ranges {
		if r.Contains(seq) {
			return true
		}
	}
	return false
}
