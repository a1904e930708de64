package printk

import (
	"regexp"
	"strings"
)

// titleRules take out of a panic line what differs between two crashes that are the
// same, in this order.
var titleRules = []struct {
	re   *regexp.Regexp
	with string
}{
	// "Oops: 0002 [#1] PREEMPT SMP NOPTI": the count of oopses, and how the kernel was built.
	{regexp.MustCompile(`\s*\[#\d+\].*$`), ""},
	// The offset in a function changes with the compiler, and so do the suffixes of its clones.
	{regexp.MustCompile(`(?:\.(?:isra|constprop|part|cold|llvm)(?:\.\d+)*)*\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?`), ""},
	// Workers of one pool are as good as each other: kworker/3:1H:4711, kworker/u8:2-events.
	{regexp.MustCompile(`\bkworker/[\w:+.-]*\w`), "kworker"},
	{regexp.MustCompile(`\b0x[0-9a-fA-F]+\b`), "ADDR"},
	{regexp.MustCompile(`\b[0-9a-f]{8,}\b`), "ADDR"},
	// CPUs, pids, seconds, lines of source. A digit inside a word, as in ext4, is part of a name.
	{regexp.MustCompile(`\b\d+(s?)\b`), "N$1"},
	{regexp.MustCompile(`\s+`), " "},
}

// exitCode is how init died, which tells crashes apart although it looks like an address.
var exitCode = regexp.MustCompile(`\bexitcode=0x0*([0-9a-fA-F]+)\b`)

// Title returns the part of a panic line, as TitleFinder finds it, that all crashes of the same
// kind share: CPU numbers, pids, addresses, offsets and durations are replaced by N and ADDR. It is
// for grouping. The title of a title is the title itself.
func Title(panicLine string) string {
	s := exitCode.ReplaceAllString(panicLine, "exitcode=x$1")
	for _, r := range titleRules {
		s = r.re.ReplaceAllString(s, r.with)
	}
	return strings.TrimSpace(s)
}
