package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestLackingFile has every command look at files that do not hold all that they should: each says partial and exits 3,
// and so do the receivers of a send over TLS and SSH, and the one that a send to an SFTP server brings along.
func TestLackingFile(t *testing.T) {
	for _, tc := range vmcoretest.LackingFiles(t) {
		t.Run(tc.Name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "vmcore")
			if err := os.WriteFile(file, tc.Bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			why, _, _ := strings.Cut(tc.Reason, "; ")
			if out, said := judgesRun(t, 3, "corehaul", "verify", file); !strings.Contains(out, "partial") || !strings.Contains(said, why) {
				t.Errorf("verify: %s %s", out, said)
			}
			for _, format := range []string{"kdump", "elf", "flattened"} {
				out := filepath.Join(dir, format)
				if _, said := judgesRun(t, 3, "corehaul", "export", file, "--format", format, "-o", out); !strings.Contains(said, tc.Reason) {
					t.Errorf("export: %s", said)
				}
				if format != "elf" || tc.Name != "descriptors beyond the end" { // an ELF core without a page is none
					judgesRun(t, 3, "corehaul", "verify", out)
				}
			}
			lackingSend(t, file, tc.Missing, why)
		})
	}
}

// lackingSend sends a file in all three ways.
func lackingSend(t *testing.T, file string, missing uint64, why string) {
	t.Helper()
	s, key := sshSendServe(t, "web-18")
	overSSH := []string{"--to", "ssh://dumps@" + s.sshAddress(), "--ssh-key", key, "--known-hosts", s.sshKnown(t, s.sshAddress())}
	sealed := func(way string, dumps []serveDump, said string) {
		t.Helper()
		if len(dumps) != 1 {
			t.Fatalf("%s: %d dumps", way, len(dumps))
		}
		m := dumps[0].Manifest
		if m.State != "partial" || m.Pages.Planned-m.Pages.Present != missing || !strings.Contains(m.Reason, why) || !strings.Contains(said, "dump partial") {
			t.Errorf("%s: %s, %+v, want %d missing: %s\n%s", way, m.State, m.Pages, missing, m.Reason, said)
		}
	}
	said, _ := judgesRun(t, 3, "corehaul-send", append([]string{"send", "--level", "0", file}, overSSH...)...)
	sealed("SSH", s.list(t), said)
	s = judgesServe(t)
	said, _ = judgesRun(t, 3, "corehaul-send", "send", "--to", s.target, "--identity", s.identity, "--level", "0", file)
	sealed("TLS", s.list(t), said)
	server := sshTargetServer(t)
	dir := filepath.Join(t.TempDir(), "store")
	said, _ = judgesRun(t, 3, "corehaul-send", append([]string{"send", "--level", "0", file}, sftpArgs(t, server, dir)...)...)
	sealed("SFTP", sftpList(t, dir), said)
}
