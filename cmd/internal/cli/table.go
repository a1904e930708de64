package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	columnGap = "  "
	// lastColumn is the least width of a last column that is cut: it holds titles and reasons, of which less says nothing.
	lastColumn = 24
)

// Table writes rows in aligned columns. It escapes its cells, so they may hold text of a crashed machine. On a terminal, no row is wider
// than that: columns of Spare are left out, which a line at the end says, and cells that are cut end with "…". A pipe or a file gets all.
type Table struct {
	w      io.Writer
	header bool
	fold   bool // the last column goes on in further lines, and is not cut
	spare  []string
	rows   [][]string
}

// NewTable begins a table on w. Without a header it has none, and long texts of its last column go on in further lines.
func NewTable(w io.Writer, header ...string) *Table {
	t := &Table{w: w, header: len(header) > 0, fold: len(header) == 0}
	if t.header {
		t.Row(header...)
	}
	return t
}

// Spare names columns that a narrow terminal does without, the first one first.
func (t *Table) Spare(names ...string) *Table {
	t.spare = names
	return t
}

// Fold makes long texts of the last column go on in further lines.
func (t *Table) Fold() *Table {
	t.fold = true
	return t
}

// Row adds a line.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = Printable(c)
	}
	t.rows = append(t.rows, row)
}

// Flush writes the table.
func (t *Table) Flush() error {
	var b strings.Builder
	columns := Width(t.w)
	widths, left := t.layout(columns)
	for _, row := range t.rows {
		t.line(&b, row, widths, columns)
	}
	if len(left) > 0 {
		note := fmt.Sprintf("… no room for %s; '| cat' at the end of the command shows all", strings.Join(left, ", "))
		b.WriteString(Fold(note, 2, columns) + "\n")
	}
	_, err := io.WriteString(t.w, b.String())
	return err
}

// layout returns the width of each column, -1 for those that are left out, and the names of these.
func (t *Table) layout(columns int) (widths []int, left []string) {
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], textWidth(cell))
		}
	}
	if columns <= 0 || t.fold || len(widths) == 0 {
		return widths, nil
	}
	last, least := lastOf(widths)
	for _, name := range t.spare {
		if tableWidth(widths)-widths[last]+least <= columns {
			break
		}
		widths[slices.Index(t.rows[0], name)] = -1
		left = append(left, name)
		last, least = lastOf(widths)
	}
	if over := tableWidth(widths) - columns; over > 0 {
		widths[last] = max(least, widths[last]-over)
	}
	narrow(widths, columns)
	return widths, left
}

// lastOf returns the last column that is not left out, and its least width.
func lastOf(widths []int) (last, least int) {
	for i, w := range widths {
		if w >= 0 {
			last = i
		}
	}
	return last, min(widths[last], lastColumn)
}

// tableWidth is the width of a row.
func tableWidth(widths []int) int {
	total := -len(columnGap)
	for _, w := range widths {
		if w >= 0 {
			total += w + len(columnGap)
		}
	}
	return total
}

// narrow takes from the widest columns until a row fits.
func narrow(widths []int, columns int) {
	for i := range widths {
		widths[i] = min(widths[i], columns)
	}
	for tableWidth(widths) > columns {
		widest := 0
		for i, w := range widths {
			if w > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= 1 {
			return
		}
		widths[widest]--
	}
}

// line formats a row.
func (t *Table) line(b *strings.Builder, row []string, widths []int, columns int) {
	line, pad := "", ""
	hang := 0
	for i, cell := range row {
		if widths[i] < 0 {
			continue
		}
		hang = len(pad) + textWidth(line)
		cell = clipTo(cell, widths[i])
		line += pad + cell
		pad = strings.Repeat(" ", widths[i]-textWidth(cell)) + columnGap
	}
	line = strings.TrimRight(line, " ")
	if t.fold && columns > 0 {
		line = Fold(line, hang, columns)
	}
	b.WriteString(line + "\n")
}
