package signature_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/kernel/signature"
)

var update = flag.Bool("update", false, "write testdata/corpus.txt")

// corpus returns the logs of the tests of kernel/oops, by name.
func corpus(tb testing.TB) map[string]string {
	tb.Helper()
	files, err := filepath.Glob("../oops/testdata/*.log")
	if err != nil || len(files) < 200 {
		tb.Fatalf("found %d logs: %v", len(files), err)
	}
	logs := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		_, log, _ := strings.Cut(string(text), "\n\n")
		logs[strings.TrimSuffix(filepath.Base(file), ".log")] = log
	}
	return logs
}

// ofText returns the signature of a log, nil if it shows no crash.
func ofText(log string) *signature.Signature {
	r, err := oops.Read(strings.NewReader(log))
	if err != nil {
		return nil
	}
	return signature.OfLog(r)
}

// words are what a signature is made of.
func words(s *signature.Signature) string {
	switch {
	case s == nil:
		return "none"
	case s.Vague:
		return "vague: " + strings.Join(s.Frames, " < ")
	}
	return strings.Join(s.Frames, " < ")
}

// TestCorpus holds the words of the signatures of all logs to a table. A change of it needs another Version.
func TestCorpus(t *testing.T) {
	files, _ := filepath.Glob("../oops/testdata/*.log")
	logs := corpus(t)
	var table strings.Builder
	for _, file := range files { // in order
		name := strings.TrimSuffix(filepath.Base(file), ".log")
		fmt.Fprintf(&table, "%-32s %s\n", name, words(ofText(logs[name])))
	}
	const file = "testdata/corpus.txt"
	if *update {
		if err := os.WriteFile(file, []byte(table.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), table.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSameOrNot says which logs have one signature, which share the coarse one only, and which share nothing.
func TestSameOrNot(t *testing.T) {
	logs := corpus(t)
	for _, tc := range []struct {
		fine, coarse bool
		names        []string
	}{
		// One crash, several kernels.
		{true, true, []string{"real-5.10-null-read", "real-6.1-null-read", "real-7.3-null-read"}},
		{true, true, []string{"real-5.10-null-call", "real-6.1-null-call", "real-7.3-null-call"}},
		{true, true, []string{"real-5.10-bug", "real-6.1-bug", "real-7.3-bug"}},
		{true, true, []string{"real-5.10-warn", "real-6.1-warn", "real-7.3-warn"}},
		{true, true, []string{"real-5.10-panic", "real-6.1-panic", "real-7.3-panic"}},
		{true, true, []string{"real-5.10-gp-fault", "real-6.1-gp-fault", "real-7.3-gp-fault"}},
		{true, true, []string{"real-5.10-stack-overflow", "real-6.1-stack-overflow", "real-7.3-stack-overflow"}},
		{true, true, []string{"real-5.10-softirq", "real-6.1-softirq", "real-6.12-softirq", "real-7.3-softirq"}},
		{true, true, []string{"real-5.10-workqueue", "real-6.1-workqueue", "real-6.12-workqueue", "real-7.3-workqueue"}},
		{true, true, []string{"real-5.10-kthread", "real-6.1-kthread", "real-6.12-kthread", "real-7.3-kthread"}},
		{true, true, []string{"real-5.10-hardirq", "real-6.1-hardirq", "real-6.12-hardirq", "real-7.3-hardirq"}},
		{true, true, []string{"real-5.10-sysrq", "real-6.1-sysrq", "real-6.12-sysrq", "real-6.1-arm64-sysrq", "real-6.12-arm64-sysrq", "real-7.3-arm64-16k-sysrq", "x86-310-sysrq"}},
		// One loop, found by two watchdogs.
		{true, true, []string{"real-6.1-soft-lockup", "real-6.1-rcu-stall"}},
		// One function, several callers.
		{false, true, []string{"real-6.1-null-read", "real-6.1-hardirq", "real-6.1-ipi", "real-6.1-softirq", "real-6.1-workqueue", "real-6.1-kthread"}},
		// Several functions, and several kinds.
		{false, false, []string{"real-6.1-wild-pointer", "real-6.1-readonly-write", "real-6.1-null-read", "real-6.1-null-write", "real-6.1-null-call", "real-6.1-gp-fault"}},
		{false, false, []string{"real-6.1-sysrq", "real-6.1-oom", "real-6.1-nmi", "real-6.1-init-exit", "real-6.1-panic", "real-6.1-bug", "real-6.1-stack-smash"}},
		// Logs without a call trace.
		{false, false, []string{"mix-cut-all-but-trace", "mix-cut-headline", "dentry", "workqueue-lockup"}},
	} {
		for i, a := range tc.names {
			for _, b := range tc.names[i+1:] {
				sa, sb := ofText(logs[a]), ofText(logs[b])
				if sa == nil || sb == nil {
					t.Errorf("no signature of %s or %s", a, b)
				} else if (sa.ID == sb.ID) != tc.fine || (sa.Coarse == sb.Coarse) != tc.coarse || sa.ID == sa.Coarse {
					t.Errorf("%s: %s\n%s: %s", a, words(sa), b, words(sb))
				}
			}
		}
	}
}

// TestWhatDoesNotCount changes what differs between two hosts, boots, CPUs and builds: the signature stays.
func TestWhatDoesNotCount(t *testing.T) {
	suffix := regexp.MustCompile(`(?m)^(.*\]  )((?:\? )?[a-z_]+)(\+0x)`)
	for what, change := range map[string]func(log string) string{
		"offsets": func(log string) string {
			return regexp.MustCompile(`\+0x[0-9a-f]+/0x[0-9a-f]+`).ReplaceAllString(log, "+0x7/0x99")
		},
		"clones":   func(log string) string { return suffix.ReplaceAllString(log, "${1}${2}.isra.0.constprop.7.cold${3}") },
		"LLVM":     func(log string) string { return suffix.ReplaceAllString(log, "${1}${2}.llvm.1234567890${3}") },
		"the CPU":  func(log string) string { return regexp.MustCompile(`CPU: 0 `).ReplaceAllString(log, "CPU: 31 ") },
		"the task": func(log string) string { return regexp.MustCompile(`Comm: \S+`).ReplaceAllString(log, "Comm: other") },
		"unproved frames": func(log string) string {
			return regexp.MustCompile(`(?m)^(.*\]  )\? .*$`).ReplaceAllString(log, "${1}? elsewhere+0x1/0x2")
		},
	} {
		for name, log := range corpus(t) {
			if !strings.HasPrefix(name, "real-") {
				continue
			}
			if a, b := ofText(log), ofText(change(log)); a == nil || b == nil || a.ID != b.ID {
				t.Errorf("%s, another %s:\n%s\n%s", name, what, words(a), words(b))
			}
		}
	}
}

// FuzzOfLog reads hostile logs: a signature is short, printable, and the same each time.
func FuzzOfLog(f *testing.F) {
	for _, log := range corpus(f) {
		f.Add(log)
	}
	f.Fuzz(func(t *testing.T, log string) {
		s, again := ofText(log), ofText(log)
		if !cmp.Equal(s, again) {
			t.Errorf("%+v, then %+v", s, again)
		}
		if s == nil {
			return
		}
		if len(s.ID) != 16 || len(s.Coarse) != 16 || len(s.Frames) == 0 || len(s.Frames) > 5 {
			t.Errorf("%+v", s)
		}
		for _, w := range s.Frames {
			if len(w) > 256 || strings.ContainsFunc(w, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Errorf("word %q", w)
			}
		}
	})
}
