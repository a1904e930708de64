package e2e

import (
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// BenchmarkBacktrace prints the stacks of all CPUs of a busy guest, beside crash, which reads 1.7 GB of debug symbols for it.
func BenchmarkBacktrace(b *testing.B) {
	k, c := benchLab(b)
	vmlinux, err := k.Vmlinux(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	var ours, crash time.Duration
	for b.Loop() {
		start := time.Now()
		judgesRun(b, 0, "corehaul", "bt", "--all", c.ELF)
		ours += time.Since(start)
		start = time.Now()
		if _, err := lab.Crash(b.Context(), vmlinux, c.ELF, "bt -a"); err != nil {
			b.Fatal(err)
		}
		crash += time.Since(start)
	}
	benchReport(b, ours, map[string]time.Duration{"crash": crash})
}
