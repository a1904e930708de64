package oops_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/oops"
)

var update = flag.Bool("update", false, "write the golden files of testdata")

// A file of testdata is a log behind a header: lines "# key: value" up to an empty line. source names the kernel's files
// with the format strings. kind, title and the other keys are what the report must say; "kind: none" is for logs without a
// crash. The file NAME.json has the whole report.
type sample struct {
	name, log string
	want      map[string]string
}

func samples(tb testing.TB) []sample {
	tb.Helper()
	files, err := filepath.Glob("testdata/*.log")
	if err != nil || len(files) < 200 {
		tb.Fatalf("found %d logs in testdata: %v", len(files), err)
	}
	var list []sample
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		header, log, ok := strings.Cut(string(text), "\n\n")
		if !ok {
			tb.Fatalf("%s has no header", file)
		}
		s := sample{name: strings.TrimSuffix(filepath.Base(file), ".log"), log: log, want: map[string]string{}}
		for line := range strings.Lines(header + "\n") {
			key, value, _ := strings.Cut(strings.TrimPrefix(line, "# "), ": ")
			s.want[key] = strings.TrimSpace(value)
		}
		list = append(list, s)
	}
	return list
}

func TestCorpus(t *testing.T) {
	for _, s := range samples(t) {
		t.Run(s.name, func(t *testing.T) {
			if s.want["source"] == "" || s.want["kind"] == "" {
				t.Fatal("the header lacks source or kind")
			}
			r, err := oops.Read(strings.NewReader(s.log))
			if s.want["kind"] == "none" {
				if !errors.Is(err, oops.ErrNoCrash) {
					t.Errorf("got %+v, %v, want ErrNoCrash", r, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			compare(t, s, r)
			golden(t, s.name, r)
		})
	}
}

// TestRealFrames holds that a report has the frames that a kernel printed, each line one and in order.
func TestRealFrames(t *testing.T) {
	line := regexp.MustCompile(`(?m)^\[ *\d+\.\d+\]  (\? )?([\w.]+)\+0x`)
	for _, s := range samples(t) {
		r, err := oops.Read(strings.NewReader(s.log))
		if err != nil || !strings.HasPrefix(s.name, "real-") {
			continue
		}
		_, behind, _ := strings.Cut(s.log, r.Headline)
		behind, _, _ = strings.Cut(behind, "] "+r.PanicLine+"\n") // the kernel prints another trace there
		printed := line.FindAllStringSubmatch(behind, -1)
		if len(printed) < 5 {
			t.Errorf("%s: found only %d frames in the log", s.name, len(printed))
		}
		var frames []oops.Frame
		for _, trace := range r.Traces {
			frames = append(frames, trace.Frames...)
		}
		if len(frames) != len(printed) {
			t.Errorf("%s: %d frames, want %d", s.name, len(frames), len(printed))
			continue
		}
		for i, m := range printed {
			if f := frames[i]; f.Function != m[2] || f.Unreliable != (m[1] != "") {
				t.Errorf("%s, frame %d: got %+v, want %s", s.name, i, f, m[0])
			}
		}
	}
}

// compare holds a report to the header.
func compare(t *testing.T, s sample, r *oops.Report) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	for key, want := range s.want {
		if key == "source" || key == "note" {
			continue
		}
		if key == "first" { // the first frame of the blamed trace
			fields[key] = r.Traces[0].Frames[0].Function
		}
		got := ""
		if v, ok := fields[key]; ok {
			b, _ := json.Marshal(v) // it came from JSON
			got = strings.Trim(string(b), `"`)
		}
		if key == "title" {
			got = r.Title
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

// golden compares a report with its golden file. It has a line for each frame.
func golden(t *testing.T, name string, r *oops.Report) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.NewReplacer(`,{"`, ",\n  {\"", `[{"`, "[\n  {\"", `,"headline"`, ",\n \"headline\"", `,"traces"`, ",\n \"traces\"", `,"ip"`, ",\n \"ip\"").Replace(string(text)) + "\n"
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, []byte(lines), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if lines != string(want) {
		t.Errorf("got\n%s\nwant\n%s", lines, want)
	}
}
