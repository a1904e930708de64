package triage

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
)

// System says which machine and kernel crashed.
func (m *Memory) System() System {
	s := System{}
	m.part("the machine", func() error {
		info := m.img.Info()
		facts := machine.FactsOf(info, m.k)
		s.Release, s.Version, s.Nodename, s.Machine = facts.Utsname.Release, facts.Utsname.Version, facts.Utsname.Nodename, facts.Utsname.Machine
		s.CrashTime = facts.CrashTime
		if len(info.CPUs) > 0 || info.NrCPUs > 0 { // Facts has one without notes too
			s.CPUs = facts.NrCPUs
		}
		s.BuildID, _ = info.VMCOREINFO.String("BUILD-ID")
		return nil
	})
	if m.types == nil {
		return s
	}
	m.part("the uptime", func() (err error) {
		s.UptimeMsec, err = m.uptime()
		return err
	})
	m.part("the load average", func() (err error) {
		s.Load, err = m.load()
		return err
	})
	m.part("the size of memory", func() (err error) {
		s.MemoryBytes, err = m.presentBytes()
		return err
	})
	s.Tasks = len(m.list())
	if at, ok := m.symbols.Address("cpu_khz"); ok {
		m.part("cpu_khz", func() error {
			khz, err := m.k.ReadUint32(at)
			s.CPUkHz = uint64(khz)
			return err
		})
	}
	return s
}

const (
	// maxNodes is the largest MAX_NUMNODES (1 << CONFIG_NODES_SHIFT).
	maxNodes = 1 << 10
	// maxPages is what 52 bits of physical addresses have of the smallest pages.
	maxPages = 1 << (52 - 12)
)

// presentBytes adds up the pages that the NUMA nodes have: node_data points to a struct pglist_data for each. A kernel without
// CONFIG_NUMA has only contig_page_data.
func (m *Memory) presentBytes() (uint64, error) {
	offset, err := m.types.Offset("pglist_data", "node_present_pages")
	if err != nil {
		return 0, err
	}
	var nodes []mem.VirtAddr
	if at, ok := m.symbols.Address("contig_page_data"); ok {
		nodes = append(nodes, at)
	} else if nodes, err = m.nodes(); err != nil {
		return 0, err
	}
	pages := uint64(0)
	for _, at := range nodes {
		n, err := m.k.ReadUint64(at + mem.VirtAddr(offset))
		if err != nil {
			return 0, err
		}
		if n > maxPages-pages {
			return 0, fmt.Errorf("the node at %v has %d pages: more than any machine", at, n)
		}
		pages += n
	}
	return pages << m.k.PageShift(), nil
}

// nodes returns the addresses of all struct pglist_data.
func (m *Memory) nodes() (list []mem.VirtAddr, err error) {
	at, ok := m.symbols.Address("node_data")
	if !ok {
		return nil, noSymbol("node_data")
	}
	table, _ := m.symbols.Find(at)
	b := make([]byte, min(table.Size, 8*maxNodes)&^7)
	if err := m.k.ReadVirt(b, at); err != nil {
		return nil, err
	}
	for ; len(b) > 0; b = b[8:] {
		if node := binary.LittleEndian.Uint64(b); node != 0 {
			list = append(list, mem.VirtAddr(node))
		}
	}
	return list, nil
}

// uptime returns the milliseconds since the kernel started, by its jiffies. They begin five minutes before they overflow 32
// bits (INITIAL_JIFFIES in include/linux/jiffies.h).
func (m *Memory) uptime() (uint64, error) {
	at, ok := m.symbols.Address("jiffies_64")
	if !ok {
		return 0, noSymbol("jiffies_64")
	}
	jiffies, err := m.k.ReadUint64(at)
	if err != nil {
		return 0, err
	}
	tick, err := m.tickNsec()
	if err != nil {
		return 0, err
	}
	hz := (1e9 + tick/2) / tick
	passed := jiffies - (1<<32 - 300*hz) // modulo 2^64
	if most := uint64(math.MaxUint64); passed > most/1e9 {
		return 0, fmt.Errorf("jiffies_64 is %d: not a time since the start", jiffies)
	}
	return passed * 1000 / hz, nil
}

// tickNsec returns the nanoseconds of a jiffy (TICK_NSEC), from the clock source that counts jiffies
// (kernel/time/jiffies.c). The kernel keeps HZ in no other place that kernels since 4.19 share.
func (m *Memory) tickNsec() (uint64, error) {
	at, ok := m.symbols.Address("clocksource_jiffies")
	if !ok {
		return 0, noSymbol("clocksource_jiffies")
	}
	view, err := m.types.View("clocksource", []string{"mult", "shift"})
	if err != nil {
		return 0, err
	}
	clock, err := view.Read(m.k, at)
	if err != nil {
		return 0, err
	}
	const fastest, slowest = 1e9 / 2000, 1e9 / 20 // HZ is 24 to 1200
	mult, shift := clock.Uint("mult"), clock.Uint("shift")
	tick := mult >> min(shift, 63)
	if tick < fastest || tick > slowest {
		return 0, fmt.Errorf("clocksource_jiffies at %v has mult %d, shift %d: no tick of a kernel", at, mult, shift)
	}
	return tick, nil
}

// load returns the load averages: avenrun, fixed-point numbers with FSHIFT bits (include/linux/sched/loadavg.h).
func (m *Memory) load() ([]float64, error) {
	const fshift = 11
	at, ok := m.symbols.Address("avenrun")
	if !ok {
		return nil, noSymbol("avenrun")
	}
	var b [3 * 8]byte
	if err := m.k.ReadVirt(b[:], at); err != nil {
		return nil, err
	}
	var load []float64
	for i := range 3 {
		load = append(load, float64(binary.LittleEndian.Uint64(b[8*i:]))/(1<<fshift))
	}
	return load, nil
}

// noSymbol is the error for a variable that the kernel's symbols lack. Without CONFIG_KALLSYMS_ALL, they are those of code alone.
func noSymbol(name string) error {
	return fmt.Errorf("the kernel's symbols lack %s: it has those of code alone, or this one could not be read", name)
}

// hexAddr formats an address as the kernel prints it.
func hexAddr(a mem.VirtAddr) string { return fmt.Sprintf("%016x", uint64(a)) }
