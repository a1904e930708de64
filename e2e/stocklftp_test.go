package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// lftp runs commands in lftp. SUSE's kdump uses lftp for sftp:// targets.
func (c *stockClient) lftp(t *testing.T, commands ...string) {
	t.Helper()
	connect := "set sftp:connect-program \"ssh -a -x " + strings.Join(c.options, " ") + "\""
	open := fmt.Sprintf("open -u kdump, sftp://%s:%s", strings.TrimPrefix(c.host, "kdump@"), c.port)
	script := slices.Concat([]string{"set cmd:fail-exit yes", connect, open}, commands)
	c.run(t, 0, "", "lftp", "--norc", "-c", strings.Join(script, "; "))
}

// TestStockLftp sends six crashes of a SUSE machine to one directory, as if within the minute in its name. lftp sets the length of each
// file right after its bytes. Each crash becomes a dump with its own log, and the receiver logs no warning.
func TestStockLftp(t *testing.T) {
	t.Parallel()
	const crashes = 6
	argv, _ := stockMakedumpfile(t, "-F", "-l", "-d", "31")
	flat := filepath.Join(t.TempDir(), "flat")
	stockPipe(t, argv, "", flat)
	s := sshServe(t)
	c := s.client(t, "db-1")
	const dir = "/var/log/dump/db-1-2026-03-01-12-00"
	line := func(i int) string { return fmt.Sprintf("Kernel panic - not syncing: crash number %d", i) }
	for i := range crashes {
		put := func(name, path string) string { return fmt.Sprintf("put %s -o %s/%s", path, dir, name) }
		c.lftp(t, "mkdir -pf "+dir, "chmod 700 "+dir,
			put("README.txt", stockFile(t, "readme", "If you see this text the crash dump is likely incomplete.\n")),
			put("dmesg", stockFile(t, "dmesg", "[    9.000000] "+line(i)+"\n")), put("vmcore", flat),
			put("README.txt", stockFile(t, "readme", "vmcore status: saved successfully\n")))
	}
	serveWait(t, "the seals", func() bool {
		list := s.list(t)
		return len(list) == crashes && !slices.ContainsFunc(list, func(d serveDump) bool { return d.Manifest.State == "arriving" })
	})
	var panics []string
	for _, d := range s.list(t) {
		if d.Manifest.State != "complete" {
			t.Errorf("a dump is %s: %s", d.Manifest.State, d.Manifest.Reason)
		}
		if log, _ := judgesRun(t, 0, "corehaul", "log", d.ID, "--data", s.data); !strings.Contains(log, d.Manifest.PanicLine) {
			t.Errorf("the log of %q is %q", d.Manifest.PanicLine, log)
		}
		panics = append(panics, d.Manifest.PanicLine)
	}
	slices.Sort(panics)
	for i := range crashes {
		if i >= len(panics) || panics[i] != line(i) {
			t.Errorf("the dumps are %q", panics)
			break
		}
	}
	if log := s.said(t); strings.Contains(log, "WARN") || strings.Contains(log, "ERROR") {
		t.Errorf("the receiver says\n%s", log)
	}
}
