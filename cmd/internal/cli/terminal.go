package cli

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
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
// terminal, control characters other than newline and tab are escaped; to a pipe
// or a file every byte goes as it is.
func TextOutput(w io.Writer) io.Writer {
	if IsTerminal(w) {
		return escaper{w}
	}
	return w
}

// escaper writes control characters as \xNN. It works on bytes, so that a character
// may be split between two writes; bytes above 0x7f pass, for UTF-8.
type escaper struct{ w io.Writer }

func (e escaper) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p))
	for _, c := range p {
		if (c < ' ' && c != '\n' && c != '\t') || c == 0x7f {
			out = fmt.Appendf(out, `\x%02x`, c)
			continue
		}
		out = append(out, c)
	}
	if _, err := e.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
