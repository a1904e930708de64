package printk

import "bytes"

// maxLogLine is how much of a line of the log is searched for the panic message; the
// kernel's own limit for a record is 1 KiB (PRINTKRB_RECORD_MAX).
const maxLogLine = 2 << 10

// TitleScanner finds the panic line in the text of a log that is written to it in pieces. It takes
// logs and lines of any length, and 2 KiB of memory. Its zero value is ready.
type TitleScanner struct {
	finder TitleFinder
	line   []byte // begun, not ended; at most maxLogLine
	start  uint64 // offset of that line
	bytes  uint64
}

// Write takes a piece of the log. It never fails.
func (s *TitleScanner) Write(p []byte) (int, error) {
	n := len(p)
	for {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		s.line = append(s.line, line[:min(len(line), maxLogLine-len(s.line))]...)
		s.bytes += uint64(len(p) - len(rest)) //nolint:gosec // a length
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

// Bytes returns the length of what was written.
func (s *TitleScanner) Bytes() uint64 { return s.bytes }

// Line returns the panic line, empty when there is none, once all of the log was written.
func (s *TitleScanner) Line() string { return s.title().text }

// title returns the panic line and where it lies.
func (s *TitleScanner) title() headline {
	s.end()
	return s.finder.title()
}
