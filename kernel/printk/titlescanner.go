package printk

import "bytes"

// maxLogLine is how much of a line of the log is searched for the panic message; the
// kernel's own limit for a record is 1 KiB (PRINTKRB_RECORD_MAX).
const maxLogLine = 2 << 10

// TitleScanner finds the panic line in the text of a log that is written to it in pieces. Its
// zero value is ready.
type TitleScanner struct {
	finder TitleFinder
	line   []byte // begun, not ended; at most maxLogLine
}

// Write takes a piece of the log. It never fails.
func (s *TitleScanner) Write(p []byte) (int, error) {
	n := len(p)
	for {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		s.line = append(s.line, line[:min(len(line), maxLogLine-len(s.line))]...)
		if !ended {
			return n, nil
		}
		s.end()
		p = rest
	}
}

func (s *TitleScanner) end() {
	s.finder.Add(string(s.line))
	s.line = s.line[:0]
}

// Line returns the panic line, empty when there is none, once all of the log was written.
func (s *TitleScanner) Line() string {
	s.end()
	return s.finder.Line()
}
