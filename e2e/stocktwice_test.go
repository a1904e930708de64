package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// twiceClient is what the capture kernel of a distribution sends with OpenSSH for one crash.
type twiceClient struct {
	dir  string
	send func(t *testing.T, c *stockClient, dir, log string, makedumpfile []string)
}

var twiceClients = map[string]twiceClient{
	"Red Hat": {"/var/crash/10.0.0.7-2026-03-01-12:00:07", func(t *testing.T, c *stockClient, dir, log string, makedumpfile []string) {
		t.Helper()
		c.ssh(t, 0, "", "mkdir -p "+dir)
		c.ssh(t, 0, log, "umask 0077 && dd of='"+dir+"/vmcore-dmesg-incomplete.txt'")
		c.ssh(t, 0, "", "mv "+dir+"/vmcore-dmesg-incomplete.txt "+dir+"/vmcore-dmesg.txt")
		c.pipe(t, makedumpfile, "umask 0077 && dd bs=512 of='"+dir+"/vmcore-incomplete'")
		c.ssh(t, 0, "", "mv '"+dir+"/vmcore-incomplete' '"+dir+"/vmcore.flat'")
	}},
	"Debian": {"/var/crash/10.0.0.8-202603011200", func(t *testing.T, c *stockClient, dir, log string, makedumpfile []string) {
		t.Helper()
		c.ssh(t, 0, "", "mkdir -p "+dir)
		c.scp(t, 0, []string{"-q"}, stockFile(t, "dmesg", log), ":"+dir+"/dmesg.202603011200")
		c.pipe(t, makedumpfile, "dd of="+dir+"/dump-incomplete")
		c.ssh(t, 0, "", "mv "+dir+"/dump-incomplete "+dir+"/dump.202603011200")
	}},
	"SUSE": {"/var/log/dump/db-1-2026-03-01-12-00", func(t *testing.T, c *stockClient, dir, log string, makedumpfile []string) {
		t.Helper()
		put := "umask 077; mkdir -p " + dir + " && cat > " + dir + "/"
		c.ssh(t, 0, "If you see this text the crash dump is likely incomplete.\n", put+"README.txt")
		c.ssh(t, 0, log, put+"dmesg")
		c.pipe(t, makedumpfile, put+"vmcore")
		c.ssh(t, 0, "vmcore status: saved successfully\n", put+"README.txt")
	}},
}

// TestStockTwice has a machine crash twice into the directory of one minute, and send its kernel (an ELF file that is no core) beside each
// dump: there are two dumps, each with its own log and its own kernel.
func TestStockTwice(t *testing.T) {
	t.Parallel()
	argv, _ := stockMakedumpfile(t, "-F", "-l", "-d", "31")
	kernel := judgesBin + "corehaul-send"
	want, err := os.ReadFile(kernel)
	if err != nil {
		t.Fatal(err)
	}
	for name, client := range twiceClients {
		t.Run(name, func(t *testing.T) {
			s := sshServe(t)
			c := s.client(t, "db-1")
			var panics []string
			for i := range 2 {
				panics = append(panics, fmt.Sprintf("Kernel panic - not syncing: crash number %d", i))
				client.send(t, c, client.dir, "[    9.000000] "+panics[i]+"\n", argv)
				c.scp(t, 0, []string{"-q"}, kernel, ":"+client.dir+"/vmlinux-6.1.0")
			}
			serveWait(t, "two dumps with their kernels", func() bool {
				list := s.list(t)
				return len(list) == 2 && !slices.ContainsFunc(list, func(d serveDump) bool {
					_, err := os.Stat(twiceKept(d))
					return d.Manifest.State == "arriving" || err != nil
				})
			})
			for _, d := range s.list(t) {
				log, _ := judgesRun(t, 0, "corehaul", "log", d.ID, "--data", s.data)
				i := slices.Index(panics, d.Manifest.PanicLine)
				if d.Manifest.State != "complete" || i < 0 || !strings.Contains(log, panics[i]) {
					t.Fatalf("a dump is %s (%s), %q, with the log %q", d.Manifest.State, d.Manifest.Reason, d.Manifest.PanicLine, log)
				}
				panics = slices.Delete(panics, i, i+1)
				if got, err := os.ReadFile(twiceKept(d)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("the kernel is kept as %d bytes, %v", len(got), err)
				}
				judgesRun(t, 0, "corehaul", "verify", d.ID, "--data", s.data)
			}
		})
	}
}

// twiceKept is where a dump keeps the kernel of its machine.
func twiceKept(d serveDump) string { return filepath.Join(d.Path, "files", "vmlinux-6.1.0") }
