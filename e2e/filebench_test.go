package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkFile writes a busy guest's dump to a local disk, fsynced and read back for its checksum, beside makedumpfile -l to the
// same disk, and synced: x/makedumpfile is our time as a multiple of its.
func BenchmarkFile(b *testing.B) {
	k, c, _ := benchLab(b)
	for _, level := range []string{"31", "1"} {
		b.Run("level="+level, func(b *testing.B) {
			var ours, local time.Duration
			for b.Loop() {
				dir := filepath.Join(b.TempDir(), "store")
				if err := os.Mkdir(dir, 0o755); err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				judgesRun(b, 0, "corehaul-send", "send", "--to", "file://"+dir, "--level", level, c.ELF)
				ours += time.Since(start)
				local += benchMakedumpfile(b, k, c.ELF, level)
				if err := os.RemoveAll(dir); err != nil {
					b.Fatal(err)
				}
			}
			benchReport(b, ours, map[string]time.Duration{"makedumpfile": local})
		})
	}
}
