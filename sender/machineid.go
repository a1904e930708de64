package sender

import (
	"bytes"
	"net"
	"os"
	"slices"
	"strings"
)

// VMCore is the dump file in a capture kernel.
const VMCore = "/proc/vmcore"

// MachineID identifies this machine in every boot: by the UUID of the mainboard, the serial number in the device tree, or
// the addresses of the network interfaces. It is only used in a hash.
func MachineID() []byte {
	for _, file := range []string{"/sys/class/dmi/id/product_uuid", "/proc/device-tree/serial-number"} {
		if id, err := os.ReadFile(file); err == nil {
			if id = bytes.Trim(id, "\x00\n "); len(id) > 0 {
				return id
			}
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var addrs []string
	for _, l := range links {
		if len(l.HardwareAddr) > 0 && l.Flags&net.FlagLoopback == 0 {
			addrs = append(addrs, l.HardwareAddr.String())
		}
	}
	slices.Sort(addrs)
	return []byte(strings.Join(addrs, "\n"))
}
