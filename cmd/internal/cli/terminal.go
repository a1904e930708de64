package cli

import (
	"io"
	"os"

	"golang.org/x/term"

	"github.com/corehaul/corehaul/internal/printable"
)

// IsTerminal reports whether w is a terminal.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// RefuseTerminal returns a usage error when w is a terminal: what, in words, is
// binary and must not go there.
func RefuseTerminal(w any, what string) error {
	if !IsTerminal(w) {
		return nil
	}
	return WithHint(Usagef("%s is binary and standard output is a terminal", what),
		"name a file with -o FILE, or send the output to a pipe or a file")
}

// TextOutput returns a writer for text that comes from a crashed machine: to a
// terminal, what could steer it is escaped but for line ends and tabs (see package printable); to a pipe
// or a file every byte goes as it is. Close ends the text and leaves w open.
func TextOutput(w io.Writer) io.WriteCloser {
	if IsTerminal(w) {
		return printable.NewText(w)
	}
	return asItIs{w}
}

type asItIs struct{ io.Writer }

func (asItIs) Close() error { return nil }
