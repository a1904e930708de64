package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// kdumpToolsScript runs Debian's kdump-config as the capture kernel's system does: with configuration and
// keys in their places, which are those of a mount namespace of its own.
const kdumpToolsScript = `
set -e
mount --bind "$DIR/default" /etc/default
mkdir -p /root/.ssh
mount --bind "$DIR/ssh" /root/.ssh
mount -t tmpfs tmpfs /var/crash
PATH="$DIR/bin:$PATH"
exec sh "$DIR/kdump-config" savecore
`

// TestStockKdumpTools has Debian's own client send a dump, configured as docs/stock-kdump.md says.
func TestStockKdumpTools(t *testing.T) {
	s := sshServe(t)
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("default/kdump-tools", kdumpToolsBlock(t, "/etc/default/kdump-tools"), 0o600)
	key, err := os.ReadFile(s.keys["web-17"])
	if err != nil {
		t.Fatal(err)
	}
	port := s.sshURL(t).Port()
	known, _ := judgesRun(t, 0, "corehaul", "known-hosts", "127.0.0.1:"+port, "--data", s.data)
	write("ssh/kdump_id_rsa", string(key), 0o600)
	write("ssh/known_hosts", known, 0o600)
	write("ssh/config", "Host collector\n\tPort "+port+"\n\tHostName 127.0.0.1\n", 0o600)

	argv, elf := stockMakedumpfile(t)
	write("bin/makedumpfile", "#!/bin/sh\nexec "+strings.Join(argv[:len(argv)-1], " ")+" \"$@\"\n", 0o700)
	program, err := lab.KdumpConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	const vmcore = "\nvmcore_file=/proc/vmcore\n"
	if strings.Count(string(script), vmcore) != 1 {
		t.Fatalf("%s does not say where the vmcore is", program)
	}
	write("kdump-config", strings.Replace(string(script), vmcore, "\nvmcore_file="+elf+"\n", 1), 0o700)

	if err := os.Mkdir("/var/crash", 0o755); err == nil { // the script wants it; its own is a tmpfs
		t.Cleanup(func() { _ = os.Remove("/var/crash") })
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-c", kdumpToolsScript)
	cmd.Env = append(os.Environ(), "DIR="+dir)
	out, err := cmd.CombinedOutput()
	t.Logf("kdump-config says\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	d := s.await(t, "complete")
	if d.Host != "web-17" || !strings.Contains(d.Manifest.PanicLine, capturePanic) {
		t.Errorf("filed as %s, %q", d.Host, d.Manifest.PanicLine)
	}
}

// kdumpToolsBlock is the first block of code below the heading in docs/stock-kdump.md that ends with a name.
func kdumpToolsBlock(t *testing.T, heading string) string {
	t.Helper()
	b, err := os.ReadFile("../docs/stock-kdump.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), ": "+heading+"\n")
	_, text, _ = strings.Cut(text, "```\n")
	text, _, ok := strings.Cut(text, "```\n")
	if !ok {
		t.Fatalf("no configuration for %s", heading)
	}
	return text
}

// TestStockSUSEHostKey looks the host key up as SUSE's initramfs is made: by HOST:PORT as in the URL, older ones by HOST. For
// a port of its own OpenSSH gives neither name to a host. docs/stock-kdump.md says how the lines get them.
func TestStockSUSEHostKey(t *testing.T) {
	s := sshServe(t)
	u := s.sshURL(t)
	addr := u.Host
	dir := t.TempDir()
	lines, _ := judgesRun(t, 0, "corehaul", "known-hosts", addr, "--data", s.data)
	if err := os.WriteFile(filepath.Join(dir, "collector"), []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	all := filepath.Join(dir, "all")
	captureCommand(t, "sh", "-c", "sed 's/^/"+u.Hostname()+","+addr+",/' "+filepath.Join(dir, "collector")+" > "+all)
	for _, name := range []string{addr, u.Hostname()} {
		found := captureCommand(t, "ssh-keygen", "-F", name, "-f", all)
		known := filepath.Join(dir, "known_hosts")
		if err := os.WriteFile(known, []byte(found), 0o600); err != nil {
			t.Fatal(err)
		}
		captureCommand(t, "ssh", "-F", "none", "-i", s.keys["web-17"], "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
			"-o", "GlobalKnownHostsFile=none", "-o", "UserKnownHostsFile="+known, "ssh://kdump@"+addr,
			"umask 077; mkdir -p /var/crash/web-17-2026-11-25-08-00 && cat > /var/crash/web-17-2026-11-25-08-00/README.txt")
	}
}
