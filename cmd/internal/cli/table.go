package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table writes rows in aligned columns. It escapes its cells, so they may hold text of a crashed machine.
type Table struct {
	w   *tabwriter.Writer
	err error
}

// NewTable begins a table on w; without a header it has none.
func NewTable(w io.Writer, header ...string) *Table {
	t := &Table{w: tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
	if len(header) > 0 {
		t.Row(header...)
	}
	return t
}

// Row adds a line. Flush returns the first error of the writer.
func (t *Table) Row(cells ...string) {
	if t.err != nil {
		return
	}
	line := make([]string, len(cells))
	for i, c := range cells {
		line[i] = Printable(c)
	}
	_, t.err = fmt.Fprintln(t.w, strings.Join(line, "\t"))
}

// Flush writes the table.
func (t *Table) Flush() error {
	if t.err != nil {
		return t.err
	}
	return t.w.Flush()
}
