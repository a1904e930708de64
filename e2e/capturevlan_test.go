package e2e

import (
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/sender/arm"
)

// The other end of the VLAN routes to the address of the target.
const vlanServe = `
modprobe 8021q
nic=$(ip -o link | sed -n 's/^[0-9]*: \(e[^:]*\):.*52:54:00:00:00:01.*/\1/p')
ip link add link "$nic" name vlan7 type vlan id 7
ip addr add 198.51.100.1/24 dev vlan7
ip link set vlan7 up
ip addr add 203.0.113.1/32 dev lo
install -m 0755 bin/corehaul /usr/bin/
corehaul ca init --ca ca
corehaul ca issue web-17 --ca ca --output web-17.pem
mkfifo /run/ready
setsid corehaul serve --data /var/lib/corehaul --ca ca --tls 203.0.113.1:7420 > /run/ready 2> /run/server.log &
read -r line < /run/ready || { cat /run/server.log; exit 1; }`

// The machine that panics has static addresses on a VLAN of a bond, and a configuration that says nothing of it.
const (
	vlanNetwork = `
cd /etc/systemd/network
printf '[NetDev]\nName=bond0\nKind=bond\n[Bond]\nMode=active-backup\nMIIMonitorSec=100ms\n' > 01-bond.netdev
printf '[NetDev]\nName=vlan7\nKind=vlan\n[VLAN]\nId=7\n' > 02-vlan.netdev
printf '[Match]\nPermanentMACAddress=52:54:00:00:00:02 52:54:00:00:07:02\n[Network]\nBond=bond0\n' > 03-ports.network
printf '[Match]\nName=bond0\n[Network]\nVLAN=vlan7\nLinkLocalAddressing=no\n' > 04-bond.network
printf '[Match]\nName=vlan7\n[Network]\nAddress=198.51.100.17/24\n[Route]\nDestination=203.0.113.0/24\nGateway=198.51.100.1\n' > 05-vlan.network
modprobe bonding max_bonds=0
until [ $(ls -d /sys/class/net/e* | wc -l) = 2 ]; do sleep 0.2; done
systemctl restart systemd-networkd
/lib/systemd/systemd-networkd-wait-online -i vlan7:routable --timeout=0
until [ $(ls -d /sys/class/net/bond0/lower_* | wc -l) = 2 ]; do sleep 0.2; done`
	vlanArm = `
install -m 0755 bin/corehaul-send /usr/bin/
install -m 0600 web-17.pem /etc/corehaul-send.pem
install -m 0644 contrib/corehaul-arm.service contrib/corehaul-rearm.* /etc/systemd/system/
printf 'to = ["tls://203.0.113.1:7420"]\nidentity = "corehaul-send.pem"\npatience = "5m"\n' > /etc/corehaul-send.toml
systemctl daemon-reload
systemctl enable corehaul-rearm.path
systemctl enable --now corehaul-arm
status_of`
	// Nothing arms again here: there is time to see what status says.
	vlanChange = `
move() { sed -i "s/$1/$2/" /etc/systemd/network/05-vlan.network; ip addr flush dev vlan7; systemctl restart systemd-networkd
until ip route get 203.0.113.1 | grep "src $2 "; do sleep 0.2; done; }
systemctl stop corehaul-rearm.path corehaul-rearm.service
move 198.51.100.17 198.51.100.18
status_of --offline
systemctl start corehaul-rearm.path
move 198.51.100.18 198.51.100.19
until grep 198.51.100.19 /run/corehaul-send/armed.json; do sleep 0.2; done`
)

// TestCaptureVLAN: arm copies the network of a machine that reaches its target over a VLAN on a bond only, by a static route,
// and again when its address changes. The other end is a second machine.
func TestCaptureVLAN(t *testing.T) {
	t.Parallel()
	h := newRecipeHosts(t, recipeOptions{secondCard: "52:54:00:00:07:02"})
	h.run(t, "collector", vlanServe)
	h.carry(t)
	h.run(t, "web-17", vlanNetwork)
	h.checkWrong(t, "web-17", wrongCase{"static addresses on a VLAN of a bond", vlanArm, "0", nil})
	h.checkWrong(t, "web-17", wrongCase{"another address", vlanChange, "3", []arm.Code{arm.NetworkChanged}})
	h.panic(t, recipe{at: "TestCaptureVLAN", text: "echo c > /proc/sysrq-trigger"})
	said := captureSaid(&lab.Run{Console: h.said()})
	for _, want := range []string{"bond0.7 has 198.51.100.19/24", "corehaul-send: dump complete: "} {
		if !strings.Contains(said, want) {
			t.Errorf("the capture kernel did not say %q", want)
		}
	}
	out := h.run(t, "collector", "corehaul verify --all --data /var/lib/corehaul\ncorehaul ls --data /var/lib/corehaul")
	for _, want := range []string{"web-17", "complete"} {
		if !strings.Contains(out, want) {
			t.Errorf("the collector has no word of %q:\n%s", want, out)
		}
	}
}
