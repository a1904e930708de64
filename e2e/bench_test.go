package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// BenchmarkDump sends a busy guest's dump over TLS to a receiver that checks and
// fsyncs it, beside what today's fleets do: makedumpfile into ssh, and synced. x/ssh is our time
// as a multiple of that; x/makedumpfile of makedumpfile writing a local file, without any network.
func BenchmarkDump(b *testing.B) {
	k, c, sshd := benchLab(b)
	for _, level := range []string{"31", "1"} {
		b.Run("level="+level, func(b *testing.B) {
			s := judgesServe(b)
			var ours, ssh, local time.Duration
			for b.Loop() {
				ours += benchSend(b, s, c.ELF, level)
				ssh += benchSSH(b, k, sshd, c.ELF, level)
				local += benchMakedumpfile(b, k, c.ELF, level)
			}
			benchReport(b, ours, map[string]time.Duration{"ssh": ssh, "makedumpfile": local})
		})
	}
}

// benchLab returns a busy guest's dump, its kernel, and OpenSSH's server.
func benchLab(b *testing.B) (*lab.Kernel, *lab.Captured, *lab.SSHD) {
	b.Helper()
	k, err := lab.GetKernel(b.Context(), "6.1")
	if err != nil {
		b.Fatal(err)
	}
	c, err := lab.CaptureELF(b.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", MemMiB: 1536, Kexec: "c", Busy: true})
	if err != nil {
		b.Fatal(err)
	}
	sshd, err := lab.StartSSHD(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(sshd.Stop)
	return k, c, sshd
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

// benchSSH times `makedumpfile -F | ssh HOST 'cat > FILE && sync FILE'`.
func benchSSH(b *testing.B, k *lab.Kernel, sshd *lab.SSHD, elf, level string) time.Duration {
	b.Helper()
	out := filepath.Join(b.TempDir(), "vmcore.flat")
	dump, err := k.MakedumpfileCommand(b.Context(), "--message-level", "4", "-F", "-l", "-d", level, elf)
	if err != nil {
		b.Fatal(err)
	}
	// The arguments are paths and flags of this test.
	script := strings.Join(dump, " ") + " | " + strings.Join(sshd.Client, " ") + " 'cat > " + out + " && sync " + out + "'"
	start := time.Now()
	if text, err := exec.CommandContext(b.Context(), "bash", "-o", "pipefail", "-c", script).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, text)
	}
	took := time.Since(start)
	if err := os.Remove(out); err != nil {
		b.Fatal(err)
	}
	return took
}

// benchSend times one dump and removes it, because a second one would be known already.
func benchSend(b *testing.B, s *judgesStore, elf, level string) time.Duration {
	b.Helper()
	start := time.Now()
	dir := s.send(b, elf, level)
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
