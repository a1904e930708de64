package cage

import (
	"bytes"
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/internal/race"
	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/triage"
)

// written is what a child writes.
func written(tb testing.TB, a answer) []byte {
	tb.Helper()
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	for _, v := range []any{state{Missing: []string{"landlock"}}, a} {
		if err := out.Encode(v); err != nil {
			tb.Fatal(err)
		}
	}
	return b.Bytes()
}

func someReport() *triage.Report {
	cpu := 3
	return &triage.Report{
		Version: triage.Version, Sources: []string{triage.SourceLog}, Kind: oops.Panic, Title: "kernel panic: \x1b[31mred",
		Crash:      triage.Crash{CPU: &cpu, Comm: "init"},
		Backtraces: []triage.Backtrace{{PID: 1, Frames: []triage.Frame{{Address: "ffffffff81000000", Registers: []triage.Register{{Name: "rip", Value: "0"}}}}}},
		Unread:     []string{"memory: none"},
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	const head = "{\"missing\":[]}\n"
	for name, tc := range map[string]struct {
		out      string
		confined bool
	}{
		"nothing":             {"", false},
		"no state":            {`{"report":{"report_version":2}}` + "\n", false},
		"two states":          {`{"missing":[]}{"missing":[]}` + "\n", false},
		"no answer":           {head, true},
		"half an answer":      {head + `{"report":{"report_version":2,`, true},
		"an unknown field":    {head + `{"report":{"report_version":2,"sources":[],"extra":1}}`, true},
		"a second answer":     {head + `{"failed":"a"}{"failed":"b"}`, true},
		"text behind":         {head + `{"failed":"a"} b`, true},
		"another version":     {head + `{"report":{"report_version":3}}`, true},
		"no version":          {head + `{"report":{}}`, true},
		"a list":              {head + `[]`, true},
		"another type":        {head + `{"report":{"report_version":2,"title":7}}`, true},
		"too many parts":      {head + `{"report":{"report_version":2,"unread":[` + strings.Repeat(`"",`, maxParts) + `""]}}`, true},
		"deeper than allowed": {head + `{"report":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, a, confined, err := decode([]byte(tc.out))
			if err == nil || confined != tc.confined || a.Report != nil || a.Failed != "" {
				t.Errorf("got %+v, %+v, confined %t, error %v", s, a, confined, err)
			}
		})
	}
}

// The largest structures in the fewest bytes take a bounded amount of the parent's memory.
func TestDecodeMemory(t *testing.T) {
	if race.Enabled {
		t.Skip("one goroutine: the race detector has nothing to find")
	}
	element := func(list string) string {
		n := (maxParts - 100) / 2
		return "{\"missing\":[]}\n" + `{"report":{"report_version":2,` + list + strings.Repeat("{},", n-1) + "{}]}}"
	}
	for name, out := range map[string]string{
		"modules": element(`"modules":[`), "backtraces": element(`"backtraces":[`), "frames of the log": element(`"log":{"traces":[`) + "}",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, a, _, err := decode([]byte(out))
		runtime.ReadMemStats(&after)
		if err != nil || a.Report == nil {
			t.Fatalf("%s: %v", name, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 512<<20 {
			t.Errorf("%s: %d MiB were allocated", name, used>>20)
		}
	}
}

// FuzzAnswer decodes what a child may write. What passes is written again as it was read.
func FuzzAnswer(f *testing.F) {
	f.Add(written(f, answer{Report: someReport()}))
	f.Add(written(f, answer{Failed: "there is no log"}))
	f.Add(written(f, answer{}))
	f.Add([]byte("{\"missing\":null}\n{\"report\":null}"))
	f.Fuzz(func(t *testing.T, out []byte) {
		s, a, confined, err := decode(out)
		if err != nil {
			if a.Report != nil || a.Failed != "" {
				t.Errorf("an error and an answer: %+v", a)
			}
			return
		}
		if !confined {
			t.Error("an answer without a state")
		}
		var again bytes.Buffer
		enc := json.NewEncoder(&again)
		if err := enc.Encode(s); err != nil {
			t.Fatal(err)
		}
		if err := enc.Encode(a); err != nil {
			t.Fatal(err)
		}
		s2, a2, _, err := decode(again.Bytes())
		if err != nil {
			t.Fatalf("decode of what was encoded: %v", err)
		}
		first, _ := json.Marshal([]any{s, a})
		second, _ := json.Marshal([]any{s2, a2})
		if !bytes.Equal(first, second) {
			t.Errorf("%s became %s", first, second)
		}
	})
}
