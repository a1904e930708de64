package e2e

import (
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// linksRun is a machine with several network cards that crashed.
type linksRun struct {
	t    *testing.T
	link func(up bool) error
}

// plug plugs the cable of the first card.
func (r *linksRun) plug(in bool) {
	if err := r.link(in); err != nil {
		r.t.Error(err)
	}
}

// TestCaptureLinks: the card that gets the first lease reaches nothing. The right one has no cable until the sender has said that.
// A third card lacks its firmware, a fourth one its driver.
func TestCaptureLinks(t *testing.T) {
	t.Parallel()
	s := judgesServe(t)
	initrd := s.captureImage(t, s.address(t), "6.1-generic", "", "e100")
	r := &linksRun{t: t}
	plugged := false
	said := captureRun(t, lab.Scenario{Kernel: "6.1-generic", CrashkernelMiB: 256}, initrd, lab.SenderOptions{
		Backends: []string{"-netdev", "user,id=wrong,restrict=on,net=10.99.0.0/24", "-netdev", "user,id=firmware,restrict=on"},
		Devices: []string{
			"virtio-net-pci,romfile=,netdev=wrong", "i82551,romfile=,netdev=firmware", "rtl8139,romfile=",
		},
		Start: func(link func(bool) error) { r.link = link },
		OnLine: func(line string) {
			switch {
			case strings.Contains(line, capturePanic):
				r.plug(false)
			case !plugged && strings.HasPrefix(line, "corehaul-send: tls://") && strings.Contains(line, "next try in"):
				plugged = true
				r.plug(true)
			}
		},
	})
	captureCheckConsole(t, said)
	s.checkCaptured(t)
	for _, want := range []string{
		" has 10.99.0.15/24 from DHCP server 10.99.0.2\r\n", ": no carrier", " has 10.0.2.15/24 from DHCP server 10.0.2.2\r\n",
		"missing firmware: /lib/firmware/e100/", "no driver for the network card 0000:00:", "(PCI 10ec:8139)",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the console lacks %q", want)
		}
	}
}
