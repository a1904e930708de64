// Package printable has the one rule for text that a crashed machine or a peer chose and that people see: which
// characters are shown, and what replaces the others. Text that passes cannot control a terminal, break a line or
// change the direction of its neighbours.
//
// All functions accept any bytes and are safe for concurrent use. A Writer belongs to one goroutine.
package printable

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Rune reports whether r may be shown: letters, marks, digits, punctuation, symbols and the space, as Unicode defines
// them. It refuses control characters (Cc: C0, DEL and C1, U+0080 to U+009F, which are escape sequences in many
// terminals), format characters (Cf: bidirectional controls, zero-width characters, tags, byte order mark, soft
// hyphen), line and paragraph separators, other spaces, private use, surrogates and unassigned code points.
func Rune(r rune) bool { return unicode.IsPrint(r) }

// String reports whether s is UTF-8 and may be shown. It refuses U+FFFD, which decoders write for invalid bytes.
func String(s string) bool { return !strings.ContainsFunc(s, replaced) }

func replaced(r rune) bool { return r == utf8.RuneError || !Rune(r) }

// Clean replaces characters that may not be shown by '?', and cuts s to at most limit bytes, between characters. It
// is for text that is stored or sent. Clean does not change its own results.
func Clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if replaced(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// Escape writes the bytes of characters that may not be shown, and invalid UTF-8, as \xNN.
func Escape(s string) string {
	if String(s) {
		return s
	}
	out, _ := escape(make([]byte, 0, 2*len(s)), []byte(s), Rune, hexBytes, true)
	return string(out)
}

// hexBytes escapes the bytes of a character as \xNN.
func hexBytes(out []byte, char []byte, _ rune) []byte {
	for _, c := range char {
		out = fmt.Appendf(out, `\x%02x`, c)
	}
	return out
}

// jsonEscape escapes a character inside a JSON string. The string keeps its value.
func jsonEscape(out []byte, _ []byte, r rune) []byte {
	if r1, r2 := utf16.EncodeRune(r); r1 != utf8.RuneError {
		return fmt.Appendf(out, `\u%04x\u%04x`, r1, r2)
	}
	return fmt.Appendf(out, `\u%04x`, r)
}

// escape appends p to out and escapes by esc what show refuses. It returns how many bytes of p it consumed: all of
// them, except an unfinished character at the end unless last is set.
func escape(out, p []byte, show func(rune) bool, esc func([]byte, []byte, rune) []byte, last bool) ([]byte, int) {
	done := 0
	for done < len(p) && (last || utf8.FullRune(p[done:])) {
		r, n := utf8.DecodeRune(p[done:])
		char := p[done : done+n]
		if show(r) && (r != utf8.RuneError || n > 1) {
			out = append(out, char...)
		} else {
			out = esc(out, char, r)
		}
		done += n
	}
	return out, done
}

// Writer is a writer that escapes characters that may not be shown. A character may be split between two writes.
type Writer struct {
	w    io.Writer
	show func(rune) bool
	esc  func([]byte, []byte, rune) []byte
	rest []byte // the beginning of a character
}

// NewText returns a Writer for text. Newlines and tabs stay, all else is escaped as by Escape.
func NewText(w io.Writer) *Writer {
	return &Writer{w: w, esc: hexBytes, show: func(r rune) bool { return Rune(r) || r == '\n' || r == '\t' }}
}

// NewJSON returns a Writer for JSON. It writes characters that may not be shown as \uNNNN, so the document keeps its
// meaning.
func NewJSON(w io.Writer) *Writer {
	return &Writer{w: w, esc: jsonEscape, show: func(r rune) bool { return Rune(r) || r == '\n' || r == '\t' || r == '\r' }}
}

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	all := append(w.rest, p...)
	out, done := escape(make([]byte, 0, len(all)), all, w.show, w.esc, false)
	if _, err := w.w.Write(out); err != nil {
		return 0, err
	}
	w.rest = append([]byte(nil), all[done:]...)
	return len(p), nil
}

// Close writes the bytes of an unfinished character. It does not close the underlying writer.
func (w *Writer) Close() error {
	out, _ := escape(nil, w.rest, w.show, w.esc, true)
	w.rest = nil
	if len(out) == 0 {
		return nil
	}
	_, err := w.w.Write(out)
	return err
}
