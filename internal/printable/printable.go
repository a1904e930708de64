// Package printable has the one rule for text that a crashed machine or a peer chose and that people get to see: what
// of it may be shown as it is, and what becomes of the rest. Nothing that passes can steer a terminal, break a line
// or turn the order of what stands beside it. It is under all packages, as mem is, and imports nothing of ours.
//
// It takes any bytes; functions may be called from any goroutine, a Writer from one.
package printable

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Rune reports whether r may be shown: letters, marks, digits, punctuation, symbols and the space, as Unicode has them.
// That leaves out control characters (Cc: C0, DEL and the C1 of U+0080 to U+009F, which are escape sequences to
// many a terminal), format characters (Cf: bidirectional marks, overrides and isolates, zero-width characters, tags, the
// byte order mark, the soft hyphen), line and paragraph separators, other spaces, private use, surrogates, and what is not assigned.
func Rune(r rune) bool { return unicode.IsPrint(r) }

// String reports whether all of s may be shown and is UTF-8. U+FFFD is not: it is what decoders make of broken bytes.
func String(s string) bool { return !strings.ContainsFunc(s, replaced) }

func replaced(r rune) bool { return r == utf8.RuneError || !Rune(r) }

// Clean replaces by '?' what may not be shown, and cuts s between two characters at limit bytes. It is for text that is stored
// or sent; what it returns it returns again.
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

// Escape writes the bytes of what may not be shown, or is no UTF-8, as \xNN.
func Escape(s string) string {
	if String(s) {
		return s
	}
	out, _ := escape(make([]byte, 0, 2*len(s)), []byte(s), Rune, hexBytes, true)
	return string(out)
}

// hexBytes escapes the bytes of a character for people.
func hexBytes(out []byte, char []byte, _ rune) []byte {
	for _, c := range char {
		out = fmt.Appendf(out, `\x%02x`, c)
	}
	return out
}

// jsonEscape escapes a character in a string of JSON, which stands for the same afterwards.
func jsonEscape(out []byte, _ []byte, r rune) []byte {
	if r1, r2 := utf16.EncodeRune(r); r1 != utf8.RuneError {
		return fmt.Appendf(out, `\u%04x\u%04x`, r1, r2)
	}
	return fmt.Appendf(out, `\u%04x`, r)
}

// escape appends p to out, with what is not to be shown escaped by esc. It returns how much of p it took: all of it but the beginning of
// a character that is not whole, unless nothing follows.
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

// Writer is a writer that escapes what may not be shown. A character may be split between two writes.
type Writer struct {
	w    io.Writer
	show func(rune) bool
	esc  func([]byte, []byte, rune) []byte
	rest []byte // the beginning of a character
}

// NewText returns a Writer of text: lines and tabs stay, all else is as Escape has it.
func NewText(w io.Writer) *Writer {
	return &Writer{w: w, esc: hexBytes, show: func(r rune) bool { return Rune(r) || r == '\n' || r == '\t' }}
}

// NewJSON returns a Writer of JSON, which stays the same document: what may not be shown is written as \uNNNN.
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

// Close writes what is left of a character that was not finished. It does not close the writer below.
func (w *Writer) Close() error {
	out, _ := escape(nil, w.rest, w.show, w.esc, true)
	w.rest = nil
	if len(out) == 0 {
		return nil
	}
	_, err := w.w.Write(out)
	return err
}
