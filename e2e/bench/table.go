package bench

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const mib = 1 << 20

// Tables are the report in Markdown: the machine, its links, and a table for each cell.
func (r *Report) Tables() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%s, %d cores (%s), %.0f GiB, Linux %s, %s, makedumpfile %s, %s. ", m.Date.Format(time.DateOnly), m.Cores, m.CPU,
		float64(m.Memory)/(1<<30), m.Kernel, m.Corehaul, m.Makedumpfile, m.SSH)
	if m.OwnMakedumpfile != "" {
		fmt.Fprintf(&b, "With compressors that this makedumpfile lacks: makedumpfile %s. ", m.OwnMakedumpfile)
	}
	fmt.Fprintf(&b, "Medians of %d rounds.\n", r.Rounds)
	b.WriteString("\n| link | one TCP connection, Mbit/s | there and back, ms |\n| --- | ---: | ---: |\n")
	for _, l := range r.Links {
		fmt.Fprintf(&b, "| %s | %.0f | %.2f |\n", l.Link, l.Throughput/1e6, l.RTT*1e3)
	}
	for _, cell := range r.cells() {
		r.writeTable(&b, cell)
	}
	b.WriteString("\n| a receiver to which nobody sends | CPU, s |\n| --- | ---: |\n")
	for _, name := range slices.Sorted(maps.Keys(r.Idle)) {
		fmt.Fprintf(&b, "| %s | %.2f |\n", name, r.Idle[name])
	}
	return b.String()
}

// cells are the cells of the rows in their order.
func (r *Report) cells() []Cell {
	var cells []Cell
	for _, row := range r.Rows {
		if !slices.Contains(cells, row.Cell) {
			cells = append(cells, row.Cell)
		}
	}
	return cells
}

const tableHead = `
### %s

| method | wall, s | min..max | x wall | CPU of sender, s | of receiver, s | x CPU | wire, MiB | x wire | stored, MiB | x stored | memory of sender, MiB | of receiver, MiB |
| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`

func (r *Report) writeTable(b *strings.Builder, cell Cell) {
	fmt.Fprintf(b, tableHead, cell)
	for i := range r.Rows {
		row := &r.Rows[i]
		if row.Cell != cell {
			continue
		}
		x := func(number func(*Sample) float64) string {
			if v, ok := ratio(row, r.Rows, number); ok {
				return fmt.Sprintf("%.2f", v)
			}
			return ""
		}
		m := &row.Median
		fmt.Fprintf(b, "| %s | %.2f | %.2f..%.2f | %s | %.2f | %s | %s | %s | %s | %.1f | %s | %.0f | %s |\n",
			row.Method, m.Wall, row.Min.Wall, row.Max.Wall, x(func(s *Sample) float64 { return s.Wall }),
			m.SenderCPU, remote(row, "%.2f", m.ReceiverCPU), x((*Sample).CPU),
			remote(row, "%.1f", m.Wire/mib), x(func(s *Sample) float64 { return s.Wire }),
			m.Stored/mib, x(func(s *Sample) float64 { return s.Stored }),
			m.SenderRSS/mib, remote(row, "%.0f", m.ReceiverRSS/mib))
	}
}

// remote is a number that methods without a receiver do not have.
func remote(r *Row, format string, number float64) string {
	if r.Local {
		return ""
	}
	return fmt.Sprintf(format, number)
}
