package printk

import (
	"bytes"

	"github.com/corehaul/corehaul/kernel/headline"
)

// maxLogLine is how many bytes of a line are searched for the panic message. The kernel's limit for a record is 1 KiB
// (PRINTKRB_RECORD_MAX).
const maxLogLine = 2 << 10

// TitleScanner finds the panic line in the text of a log, which is written in pieces. It accepts logs and lines of
// any length and needs 2 KiB of memory. The zero value is ready.
type TitleScanner struct {
	finder TitleFinder
	line   []byte // the unfinished line; at most maxLogLine
	start  uint64 // offset of that line
	bytes  uint64
}

// Write takes a piece of the log. It never fails.
func (s *TitleScanner) Write(p []byte) (int, error) {
	n := len(p)
	for {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		s.line = append(s.line, line[:min(len(line), maxLogLine-len(s.line))]...)
		s.bytes += uint64(len(p)) - uint64(len(rest))
		if !ended {
			return n, nil
		}
		s.end()
		p = rest
	}
}

func (s *TitleScanner) end() {
	s.finder.add(string(s.line), s.start)
	s.line, s.start = s.line[:0], s.bytes
}

// Bytes returns the number of written bytes.
func (s *TitleScanner) Bytes() uint64 { return s.bytes }

// Line returns the panic line after the whole log was written. It is empty if there is none.
func (s *TitleScanner) Line() string {
	line, _ := s.title()
	return line.Text
}

// title returns the panic line and its offset, and whether there is one.
func (s *TitleScanner) title() (headline.Line, bool) {
	s.end()
	return s.finder.title()
}
