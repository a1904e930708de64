package cli

import (
	"io"
	"os"
	"strconv"

	"golang.org/x/term"

	"github.com/corehaul/corehaul/internal/printable"
)

// IsTerminal reports whether w is a terminal.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Width returns how many columns the terminal w has: $COLUMNS, if that is set, otherwise what the terminal says. It is 0 if w is no
// terminal, or one that does not say it, as serial lines do. A w of another kind may have a method Columns() int.
func Width(w any) int {
	if c, ok := w.(interface{ Columns() int }); ok {
		return c.Columns()
	}
	columns, _ := Size(w)
	return columns
}

// Size returns Width, and how many lines the terminal w has, each 0 if that is not known.
func Size(w any) (columns, lines int) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, 0
	}
	columns, lines, err := term.GetSize(int(f.Fd()))
	if err != nil {
		columns, lines = 0, 0
	}
	if n, err := strconv.ParseUint(os.Getenv("COLUMNS"), 10, 15); err == nil && n > 0 {
		columns = int(n)
	}
	return max(columns, 0), max(lines, 0)
}

// RefuseTerminal returns a usage error if w is a terminal. what names the binary output.
func RefuseTerminal(w any, what string) error {
	if !IsTerminal(w) {
		return nil
	}
	return WithHint(Usagef("%s is binary and standard output is a terminal", what),
		"name a file with -o FILE, or send the output to a pipe or a file")
}

// TextOutput returns a writer for text of a crashed machine. On a terminal, it escapes what could control the
// terminal, except line ends and tabs (see package printable). A pipe or a file gets every byte unchanged. Close ends
// the text and leaves w open.
func TextOutput(w io.Writer) io.WriteCloser {
	if IsTerminal(w) {
		return printable.NewText(w)
	}
	return asItIs{w}
}

type asItIs struct{ io.Writer }

func (asItIs) Close() error { return nil }
