package printk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// MinShortened is the least limit of a Shortener, in bytes.
const MinShortened = 256 << 10

const (
	// shortenedSpare is the part of a limit for the marks and for lines that are kept whole.
	shortenedSpare = 32 << 10
	// minGap is the largest gap between two parts that is kept and not marked.
	minGap = 2 * maxLogLine
)

// errLogMoved says that the log changed between its two readings.
var errLogMoved = errors.New("the log reads differently a second time")

// Shortener is a writer that bounds the length of a log. Of a longer log it keeps an eighth of the limit from the
// start, the rest from the end, where the panic is, and, if the panic line is in neither, an eighth around that. A
// mark in each gap says how many bytes are missing, and names the panic line of the whole log for TitleFinder. The
// output depends on the log and the limit only. A Shortener keeps nothing of the log in memory, so the log is written
// twice: first to a TitleScanner.
type Shortener struct {
	w     io.Writer
	parts []logPart // kept parts that were not passed yet
	total uint64
	title string

	at     uint64 // offset of the next byte
	inside bool   // in parts[0]
	gap    uint64 // bytes left out since the last kept byte
	broken bool   // the last kept byte did not end a line
	left   uint64
	err    error
}

// logPart is a part of a log from start to end. Both are moved to the next line end.
type logPart struct{ start, end uint64 }

// NewShortener returns a Shortener that writes at most limit bytes to w. whole has seen the log. limit is at least
// MinShortened.
func NewShortener(w io.Writer, whole *TitleScanner, limit uint64) *Shortener {
	limit = max(limit, MinShortened)
	title, found := whole.title()
	total := whole.Bytes()
	s := &Shortener{w: w, total: total, title: title.Text, parts: []logPart{{0, total}}}
	if total <= limit {
		return s
	}
	limit -= shortenedSpare
	head, around := limit/8, limit/8
	s.parts = []logPart{{0, head}}
	tail := total - (limit - head)
	start := title.At - min(title.At, around/4)
	if found && start+around > head && start < tail {
		s.keep(logPart{start, start + around})
		tail += around
	}
	s.keep(logPart{tail, total})
	return s
}

// keep adds a part. It must not begin before the last one.
func (s *Shortener) keep(p logPart) {
	last := &s.parts[len(s.parts)-1]
	switch {
	case p.start > last.end+minGap:
		s.parts = append(s.parts, p)
	case p.end > last.end:
		last.end = p.end
	}
}

// Write takes a piece of the log. Its errors are those of the underlying writer.
func (s *Shortener) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && s.err == nil {
		var done uint64
		if s.inside {
			done = s.pass(p)
		} else {
			done = s.skip(p)
		}
		p = p[done:]
	}
	return n - len(p), s.err
}

// pass writes the bytes of the current part.
func (s *Shortener) pass(p []byte) uint64 {
	n, over := s.lineEnd(p, s.parts[0].end)
	_, s.err = s.w.Write(p[:n])
	s.broken = p[n-1] != '\n'
	if s.at += n; over {
		s.inside, s.parts = false, s.parts[1:]
	}
	return n
}

// skip leaves out the bytes before the next part.
func (s *Shortener) skip(p []byte) uint64 {
	start := uint64(math.MaxUint64 - maxLogLine)
	if len(s.parts) > 0 {
		start = s.parts[0].start
	}
	if start == 0 {
		s.inside = true
		return 0
	}
	n, over := s.lineEnd(p, start)
	s.at += n
	s.gap += n
	if over {
		s.inside, s.err = true, s.mark()
	}
	return n
}

// lineEnd returns how many bytes of p lie before the end of the line at offset edge, and whether p has that end. A
// line without an end is cut after maxLogLine bytes.
func (s *Shortener) lineEnd(p []byte, edge uint64) (n uint64, over bool) {
	near := min(edge-min(edge, s.at), uint64(len(p)))
	far := min(edge+maxLogLine-s.at, uint64(len(p)))
	if near < far {
		if i := bytes.IndexByte(p[near:far], '\n'); i >= 0 {
			return near + uint64(i) + 1, true
		}
	}
	return far, s.at+far == edge+maxLogLine
}

// mark writes the mark of a gap.
func (s *Shortener) mark() error {
	line := markText(s.gap, s.title)
	if s.broken {
		line = "\n" + line
	}
	s.left += s.gap
	s.gap = 0
	_, err := io.WriteString(s.w, line)
	return err
}

// LeftOut returns how many bytes of the log were left out.
func (s *Shortener) LeftOut() uint64 { return s.left + s.gap }

// Close returns an error if the log was not the one that whole has seen.
func (s *Shortener) Close() error {
	if s.err == nil && s.at != s.total {
		return errLogMoved
	}
	return s.err
}

// A mark differs from every line of Dump: those begin with a time stamp or a space.
const (
	markBegin = "--- corehaul left out "
	markBytes = " bytes of the log here"
	markLine  = "; its panic line: "
)

// Mark returns the lines that replace n bytes of a log. title is the panic line of the log, if known. The lines may
// follow an unfinished line.
func Mark(n uint64, title string) io.Reader { return strings.NewReader("\n" + markText(n, title)) }

func markText(n uint64, title string) string {
	line := fmt.Sprint(markBegin, n, markBytes)
	if title != "" {
		line += markLine + title
	}
	return line + "\n"
}

// markTitle returns the panic line in a mark. ok is false for any other line.
func markTitle(line string) (title string, ok bool) {
	line, ok = strings.CutPrefix(line, markBegin)
	if !ok {
		return "", false
	}
	n, rest, ok := strings.Cut(line, markBytes)
	if _, err := strconv.ParseUint(n, 10, 64); !ok || err != nil {
		return "", false
	}
	title, ok = strings.CutPrefix(rest, markLine)
	return title, ok && title != ""
}
