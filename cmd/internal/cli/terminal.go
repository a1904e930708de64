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
