package printk

import (
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// titleRules remove, in this order, the parts of a panic line that differ between two equal crashes.
var titleRules = []struct {
	re   *lazyregexp.Regexp
	with string
}{
	// "Oops: 0002 [#1] PREEMPT SMP NOPTI": the count of oopses, and how the kernel was built.
	{lazyregexp.New(`\s*\[#\d+\].*$`), ""},
	// The offset in a function changes with the compiler, and so do the suffixes of its clones.
	{lazyregexp.New(`(?:\.(?:isra|constprop|part|cold|llvm)(?:\.\d+)*)*\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?`), ""},
	// Workers of a pool are interchangeable: kworker/3:1H:4711, kworker/u8:2-events.
	{lazyregexp.New(`\bkworker/[\w:+.-]*\w`), "kworker"},
	{lazyregexp.New(`\b0x[0-9a-fA-F]+\b`), "ADDR"},
	{lazyregexp.New(`\b[0-9a-f]{8,}\b`), "ADDR"},
	// CPUs, pids, seconds, lines of source. A digit inside a word, as in ext4, is part of a name.
	{lazyregexp.New(`\b\d+(s?)\b`), "N$1"},
	{lazyregexp.New(`\s+`), " "},
}

// exitCode is the exit code of init. It looks like an address, but distinguishes crashes.
var exitCode = lazyregexp.New(`\bexitcode=0x0*([0-9a-fA-F]+)\b`)

// Title returns the part of a panic line (see TitleFinder) that all crashes of the same kind share. It replaces CPU
// numbers, pids, addresses, offsets and durations by N and ADDR. A title is its own title.
func Title(panicLine string) string {
	s := exitCode.ReplaceAllString(panicLine, "exitcode=x$1")
	for _, r := range titleRules {
		s = r.re.ReplaceAllString(s, r.with)
	}
	return strings.TrimSpace(s)
}
