package e2e

import (
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// How long whole dumps take is measured by e2e/bench.

// benchLab returns a busy guest's dump and its kernel.
func benchLab(b *testing.B) (*lab.Kernel, *lab.Captured) {
	b.Helper()
	k, err := lab.GetKernel(b.Context(), "6.1")
	if err != nil {
		b.Fatal(err)
	}
	c, err := lab.CaptureELF(b.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", MemMiB: 1536, Kexec: "c", Busy: true})
	if err != nil {
		b.Fatal(err)
	}
	return k, c
}

// benchReport reports the seconds of all, and ours as a multiple of each peer's.
func benchReport(b *testing.B, ours time.Duration, peers map[string]time.Duration) {
	b.Helper()
	b.ReportMetric(ours.Seconds()/float64(b.N), "s/corehaul")
	for name, d := range peers {
		b.ReportMetric(d.Seconds()/float64(b.N), "s/"+name)
		b.ReportMetric(ours.Seconds()/d.Seconds(), "x/"+name)
	}
}
