package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
)

// An event is a line of `go test -json` (cmd/test2json, and cmd/go's for builds).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds; of pass, fail and skip
}

// A suite is what is known of a package whose tests run.
type suite struct {
	said   strings.Builder             // to be printed with the package's last line
	tests  map[string]*strings.Builder // what unfinished tests have said
	failed []string                    // in the order in which they ended
	texts  map[string]string           // what failed tests said
}

// readEvents prints what go test prints without -json, package by package as each of them ends, and returns what
// packages and tests took.
func readEvents(r io.Reader, out io.Writer) ([]note, error) {
	suites := map[string]*suite{}
	var notes []note
	failed := false
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadBytes('\n')
		var e event
		if len(line) > 0 && json.Unmarshal(line, &e) != nil {
			e = event{Action: "build-output", Output: string(line)} // go itself says something
		}
		if n, ok := take(suites, e, out); ok {
			notes = append(notes, n)
		}
		failed = failed || e.Action == "fail"
		if errors.Is(err, io.EOF) {
			if failed {
				_, err = io.WriteString(out, "FAIL\n")
				return notes, err
			}
			return notes, nil
		}
		if err != nil {
			return notes, err
		}
	}
}

// take adds an event to what is known. The note is that of a test or a package that ended.
func take(suites map[string]*suite, e event, out io.Writer) (note, bool) {
	if e.Action == "build-output" {
		_, _ = io.WriteString(out, e.Output)
		return note{}, false
	}
	s := suites[e.Package]
	if s == nil {
		s = &suite{tests: map[string]*strings.Builder{}, texts: map[string]string{}}
		suites[e.Package] = s
	}
	switch e.Action {
	case "run":
		s.tests[e.Test] = new(strings.Builder)
	case "output":
		s.output(e.Test, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.print(out)
		} else {
			s.end(e.Test, e.Action == "fail")
		}
		n := note{Package: e.Package, Test: e.Test, Seconds: e.Elapsed}
		if e.Action == "fail" {
			n.Said = beginning(s.texts[e.Test])
		}
		return n, e.Package != ""
	}
	return note{}, false
}

func (s *suite) output(test, text string) {
	switch b := s.tests[test]; {
	case strings.HasPrefix(text, "=== "):
	case test == "" && text == "PASS\n": // without -v go test leaves it out
	case b != nil:
		b.WriteString(text)
	case s.texts[test] != "": // its result was there already
		s.texts[test] += text
	default:
		s.said.WriteString(text)
	}
}

// end keeps what a test said only if it failed.
func (s *suite) end(test string, failed bool) {
	if b := s.tests[test]; b != nil && failed {
		s.failed = append(s.failed, test)
		s.texts[test] = resultFirst(b.String())
	}
	delete(s.tests, test)
}

// resultFirst moves the line with the result before what was logged, where it is without -v.
func resultFirst(text string) string {
	lines := strings.SplitAfter(text, "\n")
	slices.SortStableFunc(lines, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	return strings.Join(lines, "")
}

// beginning returns the first lines of what a test said. Logs of programs follow them, and may be long.
func beginning(text string) string {
	const most, longest = 12, 2000
	lines := strings.SplitAfterN(text, "\n", most+1)
	text = strings.Join(lines[:min(len(lines), most)], "")
	return text[:min(len(text), longest)]
}

func rank(line string) int {
	if strings.HasPrefix(strings.TrimLeft(line, " "), "--- FAIL: ") {
		return 0
	}
	return 1
}

// print prints what failed tests said, parents before their subtests, then the unfinished ones, which ended with the
// process, and last the package's own lines.
func (s *suite) print(out io.Writer) {
	var all strings.Builder
	slices.Sort(s.failed)
	for _, test := range s.failed {
		all.WriteString(s.texts[test])
	}
	for _, test := range slices.Sorted(maps.Keys(s.tests)) {
		all.WriteString(s.tests[test].String())
	}
	all.WriteString(s.said.String())
	_, _ = io.WriteString(out, all.String()) // in one piece: other phases print too
}
