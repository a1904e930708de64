package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// BenchmarkDump sends a busy guest's dump over TLS to a receiver that checks and
// fsyncs it, beside makedumpfile writing the same pages to a local file, with fsync
// and without any network: x/makedumpfile is our time as a multiple of its.
func BenchmarkDump(b *testing.B) {
	k, err := lab.GetKernel(b.Context(), "6.1")
	if err != nil {
		b.Fatal(err)
	}
	c, err := lab.CaptureELF(b.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", MemMiB: 1536, Kexec: "c", Busy: true})
	if err != nil {
		b.Fatal(err)
	}
	for _, level := range []string{"31", "1"} {
		b.Run("level="+level, func(b *testing.B) {
			s := judgesServe(b)
			var ours, peer time.Duration
			for b.Loop() {
				ours += benchSend(b, s, c.ELF, level)
				peer += benchMakedumpfile(b, k, c.ELF, level)
			}
			b.ReportMetric(ours.Seconds()/float64(b.N), "s/corehaul")
			b.ReportMetric(peer.Seconds()/float64(b.N), "s/makedumpfile")
			b.ReportMetric(ours.Seconds()/peer.Seconds(), "x/makedumpfile")
		})
	}
}

// benchSend times one dump and removes it, because a second one would be known already.
func benchSend(b *testing.B, s *judgesStore, elf, level string) time.Duration {
	b.Helper()
	start := time.Now()
	dir := judgesSend(b, s, elf, level)
	took := time.Since(start)
	m := judgesReadManifest(b, dir)
	judgesRun(b, 0, "corehaul", "rm", "--data", s.data, m.ID)
	return took
}

func benchMakedumpfile(b *testing.B, k *lab.Kernel, elf, level string) time.Duration {
	b.Helper()
	out := filepath.Join(b.TempDir(), "vmcore")
	start := time.Now()
	if text, err := k.Makedumpfile(b.Context(), "-l", "-d", level, elf, out); err != nil {
		b.Fatalf("%v: %s", err, text)
	}
	f, err := os.Open(out)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only synced
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	if err := os.Remove(out); err != nil {
		b.Fatal(err)
	}
	return took
}
