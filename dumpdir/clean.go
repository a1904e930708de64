package dumpdir

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of the manifest's strings, in bytes.
const (
	maxHost = 64
	maxText = 512
)

// clean makes a string that a crashed machine or a peer chose safe to print: valid
// UTF-8, no control or invisible characters, at most limit bytes.
// It is idempotent.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	for len(s) > limit {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
