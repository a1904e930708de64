package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Marks of the place in a page where the report goes.
const (
	beginMark = "<!-- timed: begin -->\n"
	endMark   = "<!-- timed: end -->\n"
)

// slowest is how many tests, and how many packages, a report names.
const slowest = 10

// reportTo prints the report of a file of notes, or puts it into a page.
func reportTo(out io.Writer, file, page string) error {
	notes, err := readNotes(file)
	if err != nil {
		return err
	}
	text := report(notes)
	if page == "" {
		_, err := io.WriteString(out, text)
		return err
	}
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), beginMark)
	_, after, ended := strings.Cut(rest, endMark)
	if !ok || !ended {
		return fmt.Errorf("%s: no lines %q and %q", page, beginMark, endMark)
	}
	when := fmt.Sprintf("%s, %d CPUs (%s):\n\n", time.Now().Format(time.DateOnly), runtime.NumCPU(), cpuModel())
	return os.WriteFile(page, []byte(before+beginMark+when+text+endMark+after), 0o644)
}

func readNotes(file string) ([]note, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var notes []note
	for d := json.NewDecoder(bytes.NewReader(b)); ; {
		var n note
		if err := d.Decode(&n); errors.Is(err, io.EOF) {
			return notes, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		notes = append(notes, n)
	}
}

// cpuModel is the processor in the kernel's words.
func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo") // "unknown" without it
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name\t: "); ok {
			return strings.TrimSpace(name)
		}
	}
	return "unknown"
}

// report is three tables in Markdown, and what failed tests said first: a record of a run may keep its end only.
func report(notes []note) string {
	var phases, packages, tests []note
	for _, n := range notes {
		switch {
		case n.Package == "":
			phases = append(phases, n)
		case n.Test == "":
			packages = append(packages, n)
		default:
			tests = append(tests, n)
		}
	}
	var b strings.Builder
	b.WriteString("| phase | wall, s | CPU, s |\n| --- | ---: | ---: |\n")
	for _, n := range phases {
		fmt.Fprintf(&b, "| %s | %.0f | %.0f |\n", n.Phase, n.Seconds, n.CPU)
	}
	b.WriteString("\n| slowest packages | phase | wall, s |\n| --- | --- | ---: |\n")
	for _, n := range longest(packages) {
		fmt.Fprintf(&b, "| %s | %s | %.1f |\n", short(n.Package), n.Phase, n.Seconds)
	}
	b.WriteString("\n| slowest tests | phase | wall, s |\n| --- | --- | ---: |\n")
	for _, n := range longest(leaves(tests)) {
		fmt.Fprintf(&b, "| %s %s | %s | %.1f |\n", short(n.Package), n.Test, n.Phase, n.Seconds)
	}
	for _, n := range notes {
		if n.Said != "" {
			fmt.Fprintf(&b, "\n%s, %s:\n\n%s", short(n.Package), n.Phase, n.Said)
		}
	}
	return b.String()
}

func short(pkg string) string { return strings.TrimPrefix(pkg, "github.com/corehaul/corehaul/") }

// longest are the first of the notes, those that took longest first.
func longest(notes []note) []note {
	slices.SortStableFunc(notes, func(a, b note) int { return cmp.Compare(b.Seconds, a.Seconds) })
	return notes[:min(len(notes), slowest)]
}

// leaves are the tests without those that consist of subtests, whose time is counted there.
func leaves(tests []note) []note {
	parents := map[note]bool{}
	for _, n := range tests {
		if i := strings.LastIndexByte(n.Test, '/'); i >= 0 {
			parents[note{Phase: n.Phase, Package: n.Package, Test: n.Test[:i]}] = true
		}
	}
	return slices.DeleteFunc(tests, func(n note) bool {
		return parents[note{Phase: n.Phase, Package: n.Package, Test: n.Test}]
	})
}
