package oops

import (
	"bytes"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/kernel/headline"
)

const (
	// maxLine is how many bytes of a line are read. The kernel's limit for a record is 1 KiB (PRINTKRB_RECORD_MAX).
	maxLine = 2 << 10
	// maxReportLines and maxReportBytes limit what is kept of one report. A dump of all CPUs of a large machine is cut.
	maxReportLines = 4000
	maxReportBytes = 256 << 10
	// maxPrelude is how many lines before a headline are kept: messages such as those of lib/list_debug.c precede it.
	maxPrelude = 40
)

// Scanner finds the report of the crash in a log that is written to it in pieces. It takes logs and lines of any length and
// keeps at most 1.5 MiB of them. The zero Scanner is ready.
type Scanner struct {
	finder  headline.Finder
	line    []byte // the unfinished line, at most maxLine bytes
	banner  string // the latest line "Linux version"
	prelude []headline.Line

	current  *draft // of the report that is being read
	last     *draft // of the report that ended last
	panicked *draft // what follows the panic message
}

// draft is the text of one report.
type draft struct {
	banner    string
	prelude   []headline.Line // what came before the headline
	lines     []headline.Line // the headline is the first one
	bytes     int
	truncated bool
	closed    bool // another kernel was started
}

// Write takes a piece of the log. It never fails.
func (s *Scanner) Write(p []byte) (int, error) {
	n := len(p)
	for {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		s.line = append(s.line, line[:min(len(line), maxLine-len(s.line))]...)
		if !ended {
			return n, nil
		}
		s.end()
		p = rest
	}
}

// end takes the line that was written.
func (s *Scanner) end() {
	if len(s.line) > 0 {
		s.add(headline.Parse(strings.ToValidUTF8(string(s.line), "?")))
	}
	s.line = s.line[:0]
}

func (s *Scanner) add(l headline.Line) {
	if strings.HasPrefix(l.Text, bannerPrefix) {
		s.boot(l.Text)
		return
	}
	switch s.finder.Add(l) {
	case headline.Begin:
		s.current = s.begin(l)
	case headline.End:
		s.current.add(l)
		s.last, s.current = s.current, nil
	case headline.Panic:
		if s.current != nil {
			s.last, s.current = s.current, nil
		}
		s.panicked = s.begin(l)
	case headline.None:
		if d := firstOf(s.panicked, s.current); d != nil {
			d.add(l)
		}
	}
	s.prelude = append(s.prelude, l)
	if len(s.prelude) > 2*maxPrelude {
		s.prelude = slices.Clone(s.prelude[maxPrelude:])
	}
}

const bannerPrefix = "Linux version "

// boot takes the first line of a kernel's log. What follows belongs to no report before it: it is the kernel that was
// started after the crash, or the capture kernel.
func (s *Scanner) boot(banner string) {
	if s.panicked == nil {
		s.banner = banner
	}
	for _, d := range []*draft{s.current, s.panicked} {
		if d != nil {
			d.closed = true
		}
	}
}

// firstOf returns the first draft that there is.
func firstOf(drafts ...*draft) *draft {
	for _, d := range drafts {
		if d != nil {
			return d
		}
	}
	return nil
}

func (s *Scanner) begin(l headline.Line) *draft {
	n := len(s.prelude) // what is in it is never written again
	d := &draft{banner: s.banner, prelude: s.prelude[max(0, n-maxPrelude):n:n]}
	d.add(l)
	return d
}

func (d *draft) add(l headline.Line) {
	if d.closed {
		return
	}
	if len(d.lines) >= maxReportLines || d.bytes+len(l.Text) > maxReportBytes {
		d.truncated = true
		return
	}
	l.Text = strings.Clone(l.Text) // without the rest of its line
	d.bytes += len(l.Text)
	d.lines = append(d.lines, l)
}

// Report returns the report of the crash after the whole log was written. It returns ErrNoCrash if there is none.
func (s *Scanner) Report() (*Report, error) {
	s.end()
	_, source := s.finder.Chosen()
	var d *draft
	switch source {
	case headline.Current:
		d = s.current
	case headline.Last:
		d = s.last
	case headline.PanicLine:
		d = s.panicked
	}
	if d == nil {
		return nil, ErrNoCrash
	}
	r := d.report(s.panicked)
	r.PanicLine = s.finder.Panicked()
	if s.panicked != nil && d != s.panicked {
		r.complete(s.panicked)
	}
	return r, nil
}
