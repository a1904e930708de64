package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// stockRedHat is what Red Hat's kdump does in its initramfs for `ssh root@10.0.2.2`, command for
// command (kdump-utils: dracut/99kdumpbase/kdump.sh).
const stockRedHat = `
set -o pipefail
user=root@10.0.2.2
opts="-i /root/.ssh/kdump_id -o BatchMode=yes -o StrictHostKeyChecking=yes"
dir=/var/crash/10.0.2.15-$(date +%Y-%m-%d-%T)
dmesg > /tmp/kexec-dmesg.log
ssh -q $opts $user mkdir -p "$dir" || exit 1
vmcore-dmesg /proc/vmcore > /tmp/vmcore-dmesg.txt &&
	ssh $opts $user "umask 0077 && dd of='$dir/vmcore-dmesg-incomplete.txt'" < /tmp/vmcore-dmesg.txt &&
	ssh -q $opts $user mv "$dir/vmcore-dmesg-incomplete.txt" "$dir/vmcore-dmesg.txt" || exit 2
makedumpfile -F -l --message-level 7 -d 31 /proc/vmcore |
	ssh $opts $user "umask 0077 && dd bs=512 of='$dir/vmcore-incomplete'" || exit 3
ssh -q $opts $user mv "'$dir/vmcore-incomplete'" "'$dir/vmcore.flat'" || exit 4
scp -q $opts /tmp/kexec-dmesg.log "$user:$dir/" || exit 5
`

// TestStockCapture lets a machine panic whose capture kernel has nothing of ours: the initramfs is a shell, the real
// makedumpfile and the real OpenSSH client, as with Red Hat's kdump. What it sends is a dump like any other.
func TestStockCapture(t *testing.T) {
	t.Parallel()
	s := sshServe(t)
	k, err := lab.GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(s.sshURL(t).Host, ":")
	key, err := os.ReadFile(s.keys["web-17"])
	if err != nil {
		t.Fatal(err)
	}
	known, _ := judgesRun(t, 0, "corehaul", "known-hosts", lab.HostFromGuest+":"+port, "--data", s.data)
	initrd := filepath.Join(t.TempDir(), "capture.img")
	err = lab.StockInitrd(t.Context(), k, initrd, stockRedHat, map[string]string{
		"/root/.ssh/kdump_id": string(key), "/root/.ssh/config": "Port " + port + "\n", "/root/.ssh/known_hosts": known,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), captureTimeout)
	defer cancel()
	run, err := lab.RunSender(ctx, lab.Scenario{Kernel: "6.1"}, initrd, lab.SenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	said := run.CaptureConsole()
	_, said, _ = strings.Cut(said, "</TASK>")
	t.Logf("%v of QEMU; the capture kernel said\n%s", run.Duration.Round(time.Second), said)
	if !strings.Contains(said, "lab: kdump script ended with 0") {
		t.Error("the client's script did not end well")
	}
	serveWait(t, "the dump", func() bool {
		list := s.list(t)
		return len(list) == 1 && list[0].Manifest.State != "arriving"
	})
	stockCheck(t, s, k)
}

// stockCheck looks at the one dump of a stock client.
func stockCheck(t *testing.T, s *sshServeStore, k *lab.Kernel) {
	t.Helper()
	d := s.one(t)
	if m := d.Manifest; d.Host != "web-17" || m.State != "complete" || m.Release != k.Release || !strings.Contains(m.PanicLine, capturePanic) {
		t.Errorf("got a dump of %s, %s, of %s, %q", d.Host, m.State, m.Release, m.PanicLine)
	}
	judgesRun(t, 0, "corehaul", "verify", d.ID, "--data", s.data)
	vmlinux, err := k.Vmlinux(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := lab.Crash(t.Context(), vmlinux, filepath.Join(d.Path, "vmcore"), "sys", "bt", "log | tail -3")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "sysrq_handle_crash") {
		t.Errorf("crash says\n%s", out)
	}
	files, err := filepath.Glob(filepath.Join(d.Path, "files", "*"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("beside it: %q", files)
	if show, _ := judgesRun(t, 0, "corehaul", "show", d.ID, "--data", s.data); !strings.Contains(show, "kexec-dmesg.log") {
		t.Errorf("the capture kernel's log is not shown beside the dump:\n%s", show)
	}
}
