package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// The VLAN and the addresses in it. The bond has two ports, which a hub joins with the collector.
const (
	vlanServe = `
modprobe 8021q
nic=$(ip -o link | sed -n 's/^[0-9]*: \(e[^:]*\):.*52:54:00:00:00:01.*/\1/p')
ip link add link "$nic" name vlan7 type vlan id 7
ip addr add 198.51.100.1/24 dev vlan7
ip link set vlan7 up
install -m 0755 bin/corehaul /usr/bin/
corehaul ca init --dir ca
corehaul ca issue victim --dir ca --out victim.pem
mkfifo /run/ready
setsid corehaul serve --data /var/lib/corehaul --ca ca --tls 198.51.100.1:7420 > /run/ready 2> /run/server.log &
read -r line < /run/ready || { cat /run/server.log; exit 1; }
base64 victim.pem`
	vlanConfig = `to = ["tls://198.51.100.1:7420"]
identity = %q
patience = "5m"
[network]
mode = "static"
address = ["198.51.100.17/24"]
vlan = 7
[network.bond]
mode = "active-backup"
ports = ["52:54:00:00:07:01", "52:54:00:00:07:02"]
`
)

// TestCaptureVLAN: the target is reached over a VLAN on a bond only. The other end is a second machine.
func TestCaptureVLAN(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "checkout/bin"), os.DirFS("../bin")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), captureTimeout)
	defer cancel()
	network := filepath.Join(dir, "net")
	collector, err := lab.StartInstalled(ctx, lab.InstalledOptions{Name: "collector", Network: network, Dir: filepath.Join(dir, "checkout")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(collector.Stop)
	run := func(script string) string {
		out, code, err := collector.Run(script)
		if err != nil || code != 0 {
			t.Fatalf("exit code %d, %v\n%s", code, err, out)
		}
		return out
	}
	// The collector says other things before the identity.
	said := strings.Split(strings.TrimSpace(run(vlanServe)), "\n")
	var identity []byte
	for i := range said {
		if identity, err = base64.StdEncoding.DecodeString(strings.Join(said[i:], "")); err == nil && strings.Contains(string(identity), "PRIVATE KEY") {
			break
		}
	}
	file := filepath.Join(dir, "victim.pem")
	if err := os.WriteFile(file, identity, 0o600); err != nil {
		t.Fatal(err)
	}
	crashed, err := lab.RunSender(ctx, lab.Scenario{Kernel: "6.1"}, vlanImage(t, fmt.Sprintf(vlanConfig, file)), lab.SenderOptions{
		Backends: []string{
			"-netdev", "stream,id=cable,addr.type=unix,addr.path=" + network + ",server=off", "-netdev", "hubport,id=trunk,hubid=7,netdev=cable",
			"-netdev", "hubport,id=p1,hubid=7", "-netdev", "hubport,id=p2,hubid=7",
		},
		Devices: []string{
			"virtio-net-pci,romfile=,netdev=p1,mac=52:54:00:00:07:01", "virtio-net-pci,romfile=,netdev=p2,mac=52:54:00:00:07:02",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	console := captureSaid(crashed)
	t.Logf("%s of QEMU; the capture kernel said\n%s", crashed.Duration.Round(time.Second), console)
	for _, want := range []string{"bond0.7 has 198.51.100.17/24", "corehaul-send: dump complete: "} {
		if !strings.Contains(console, want) {
			t.Errorf("the console lacks %q", want)
		}
	}
	out := run("corehaul verify --all --data /var/lib/corehaul\ncorehaul ls --data /var/lib/corehaul")
	for _, want := range []string{captureHost, "complete"} {
		if !strings.Contains(out, want) {
			t.Errorf("the collector has no word of %q:\n%s", want, out)
		}
	}
}

// vlanImage packs the capture image. Nobody asks for bonding and 8021q but the configuration.
func vlanImage(t *testing.T, config string) string {
	t.Helper()
	k, err := lab.GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, image := filepath.Join(dir, "send.toml"), filepath.Join(dir, "capture.img")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	captureCommand(t, captureSender, "initrd", "--kernel-modules", k.ModulesDir, "--module", "virtio_net", "--config", file, "-o", image)
	return image
}
