package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// BenchmarkSFTP sends a busy guest's dump to OpenSSH's server over SFTP, which reads it back for its checksum, beside
// OpenSSH's client: x/sftp is our time as a multiple of an fsynced put of the same vmcore and a get of it, x/ssh as one of
// makedumpfile into ssh, see BenchmarkDump.
func BenchmarkSFTP(b *testing.B) {
	k, c, sshd := benchLab(b)
	lines, err := sshd.Known(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	known := filepath.Join(b.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte(lines), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, level := range []string{"31", "1"} {
		b.Run("level="+level, func(b *testing.B) {
			var ours, sftp, ssh time.Duration
			for b.Loop() {
				dir := filepath.Join(b.TempDir(), "store")
				start := time.Now()
				judgesRun(b, 0, "corehaul-send", "send", "--to", "ssh://root@"+sshd.Addr+dir, "--ssh-key", sshd.UserKeys["ed25519"],
					"--known-hosts", known, "--level", level, c.ELF)
				ours += time.Since(start)
				sftp += benchSFTP(b, sshd, known, filepath.Join((&judgesStore{data: dir}).dir(b), "vmcore"))
				ssh += benchSSH(b, k, sshd, c.ELF, level)
				if err := os.RemoveAll(dir); err != nil {
					b.Fatal(err)
				}
			}
			benchReport(b, ours, map[string]time.Duration{"sftp": sftp, "ssh": ssh})
		})
	}
}

// benchSFTP times what OpenSSH's sftp takes to put a file, have it synced, and get it again.
func benchSFTP(b *testing.B, sshd *lab.SSHD, known, file string) time.Duration {
	b.Helper()
	far, near, batch := filepath.Join(b.TempDir(), "far"), filepath.Join(b.TempDir(), "near"), filepath.Join(b.TempDir(), "batch")
	if err := os.WriteFile(batch, fmt.Appendf(nil, "put -f %s %s\nget %s %s\n", file, far, far, near), 0o600); err != nil {
		b.Fatal(err)
	}
	// The arguments are paths of this test.
	cmd := exec.CommandContext(b.Context(), "sftp", "-q", "-F", "none", "-i", sshd.UserKeys["ed25519"], "-P", capturePort(b, sshd.Addr),
		"-o", "UserKnownHostsFile="+known, "-b", batch, "root@127.0.0.1")
	start := time.Now()
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, text)
	}
	took := time.Since(start)
	if err := errors.Join(os.Remove(far), os.Remove(near)); err != nil {
		b.Fatal(err)
	}
	return took
}
