package cli

import (
	"strings"
	"unicode"
)

// wide are the characters that take two columns of a terminal: the blocks of UAX #11 (East Asian Width) that are W or F as a whole or in
// large part. One that is narrow costs a column, and no row gets too long.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x1100, Hi: 0x115f, Stride: 1},
		{Lo: 0x2e80, Hi: 0xa4cf, Stride: 1},
		{Lo: 0xa960, Hi: 0xa97f, Stride: 1},
		{Lo: 0xac00, Hi: 0xd7a3, Stride: 1},
		{Lo: 0xf900, Hi: 0xfaff, Stride: 1},
		{Lo: 0xfe10, Hi: 0xfe1f, Stride: 1},
		{Lo: 0xfe30, Hi: 0xfe6f, Stride: 1},
		{Lo: 0xff00, Hi: 0xff60, Stride: 1},
		{Lo: 0xffe0, Hi: 0xffe6, Stride: 1},
	},
	R32: []unicode.Range32{{Lo: 0x16fe0, Hi: 0x18cff, Stride: 1}, {Lo: 0x1aff0, Hi: 0x1b2ff, Stride: 1}, {Lo: 0x1f000, Hi: 0x1faff, Stride: 1}, {Lo: 0x20000, Hi: 0x3fffd, Stride: 1}},
}

// runeWidth is how many columns of a terminal r takes.
func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// textWidth is how many columns of a terminal s takes. s has no characters that control a terminal.
func textWidth(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// Clip shortens s to at most width columns of a terminal. A shortened text ends with "…". A width of 0 or less is no limit.
func Clip(s string, width int) string {
	if width <= 0 {
		return s
	}
	return clipTo(s, width)
}

func clipTo(s string, width int) string {
	if textWidth(s) <= width {
		return s
	}
	if width <= 0 {
		return ""
	}
	return s[:prefix(s, width-1)] + "…"
}

// prefix is the length in bytes of the longest beginning of s that takes at most so many columns.
func prefix(s string, columns int) int {
	for i, r := range s {
		if columns -= runeWidth(r); columns < 0 {
			return i
		}
	}
	return len(s)
}

// narrowHang is how many blanks lines begin with that go on where a second column begins too far to the right.
const narrowHang = 10

// Fold breaks a line between words into lines of at most so many columns. A longer word stays whole, so that people can copy a path or a
// checksum. All lines but the first begin with hang blanks, with fewer if that leaves less than half of a line. Fewer than 1 columns are no limit.
func Fold(line string, hang, columns int) string {
	if columns < 1 {
		return line
	}
	if hang > columns/2 {
		hang = min(narrowHang, columns/2)
	}
	for word := range strings.FieldsSeq(line[prefix(line, hang):]) {
		if w := textWidth(word); w <= columns {
			hang = min(hang, columns-w)
		}
	}
	var b strings.Builder
	for textWidth(line) > columns {
		from, end := prefix(line, hang), prefix(line, columns+1)
		at := strings.LastIndexByte(line[from:end], ' ')
		if at < 1 {
			if at = strings.IndexByte(line[end:], ' '); at < 0 {
				break
			}
			from = end
		}
		b.WriteString(strings.TrimRight(line[:from+at], " ") + "\n")
		line = strings.Repeat(" ", hang) + strings.TrimLeft(line[from+at:], " ")
	}
	return b.String() + line
}

// fitText breaks a text for people, such as help, to so many columns. It fills paragraphs that have longer lines again. A line that begins
// with blanks stays a line: what goes on of it stands below its second column, if it has columns.
func fitText(text string, columns int) string {
	if columns < 1 {
		return text
	}
	var b strings.Builder
	for i, part := range paragraphs(text) {
		if i > 0 {
			b.WriteByte('\n')
		}
		if !longer(part, columns) {
			b.WriteString(strings.Join(part, "\n"))
			continue
		}
		line := strings.Join(part, " ")
		b.WriteString(Fold(line, secondColumn(line), columns))
	}
	return b.String()
}

// paragraphs splits a text into paragraphs, and lines that stand for themselves.
func paragraphs(text string) [][]string {
	var parts [][]string
	alone := true // the next line begins something new
	for line := range strings.SplitSeq(text, "\n") {
		single := line == "" || strings.HasPrefix(line, " ")
		if alone || single {
			parts = append(parts, []string{line})
		} else {
			parts[len(parts)-1] = append(parts[len(parts)-1], line)
		}
		alone = single || strings.HasSuffix(line, ":")
	}
	return parts
}

func longer(lines []string, columns int) bool {
	for _, line := range lines {
		if textWidth(line) > columns {
			return true
		}
	}
	return false
}

// secondColumn returns where the last column of a line begins, as in the lists of flags and commands: behind the last gap of two blanks. It
// is the indentation of a line without columns.
func secondColumn(line string) int {
	indent := len(line) - len(strings.TrimLeft(line, " "))
	if at := strings.LastIndex(line, "  "); indent > 0 && at > indent {
		return at + 2
	}
	return indent
}
