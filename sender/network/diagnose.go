package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// diagnose says, once, what keeps network cards from working that the kernel alone knows: firmware that is missing, and cards
// without a driver.
func (m *Manager) diagnose() {
	for _, line := range missingFirmware(kernelLog("/dev/kmsg")) {
		m.logOnce("network: missing firmware: %s", line)
	}
	for _, card := range idleCards("/sys") {
		m.logOnce("network: no driver for the network card %s: pack its module", card)
	}
}

// maxLog bounds what is read of the kernel log, in bytes. That of a capture kernel has some 100 KiB.
const maxLog = 4 << 20

// maxRecord is more than the kernel's PRINTKRB_RECORD_MAX, in bytes.
const maxRecord = 8 << 10

// kernelLog reads the records of the kernel log, each "LEVEL,SEQUENCE,TIME,FLAGS;TEXT" and lines that begin with a blank
// (Documentation/ABI/testing/dev-kmsg in the kernel tree). What cannot be read is left out.
func kernelLog(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer func() { _ = unix.Close(fd) }()
	var log strings.Builder
	record := make([]byte, maxRecord)
	for log.Len() < maxLog {
		n, err := unix.Read(fd, record)
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) { // the record was overwritten
			continue
		}
		if n <= 0 || err != nil {
			break
		}
		log.Write(record[:n])
		if record[n-1] != '\n' {
			log.WriteByte('\n')
		}
	}
	return log.String()
}

// noFirmware matches the kernel's lines about firmware that it did not find: that of drivers/base/firmware_loader/main.c, and
// the one that Debian's kernels write too.
var noFirmware = regexp.MustCompile(`(?m)^[^;\n]*;(?:([\w.-]+ [\w.:-]+): )?(?:Direct firmware load for (\S+) failed|firmware: failed to load (\S+) \()`)

// maxFirmware bounds the lines of missingFirmware.
const maxFirmware = 16

// missingFirmware lists the files of firmware that the kernel did not find, each with the driver and device that asked.
func missingFirmware(log string) []string {
	var list []string
	for _, m := range noFirmware.FindAllStringSubmatch(log, -1) {
		line := "/lib/firmware/" + m[2] + m[3]
		if m[1] != "" {
			line += " for " + m[1]
		}
		if !slices.Contains(list, line) && len(list) < maxFirmware {
			list = append(list, line)
		}
	}
	return list
}

// idleCards lists network cards without a driver: of PCI by their class, and of virtio by their kind (VIRTIO 1.2, section 5).
// sys is where sysfs is mounted.
func idleCards(sys string) []string {
	var list []string
	cards, _ := filepath.Glob(filepath.Join(sys, "bus/pci/devices/*")) // the pattern is good
	for _, card := range cards {
		if strings.HasPrefix(attribute(card, "class"), "0x02") && idle(card) {
			list = append(list, fmt.Sprintf("%s (PCI %s:%s)", filepath.Base(card), hex(card, "vendor"), hex(card, "device")))
		}
	}
	cards, _ = filepath.Glob(filepath.Join(sys, "bus/virtio/devices/*"))
	for _, card := range cards {
		if strings.HasPrefix(attribute(card, "modalias"), "virtio:d00000001v") && idle(card) {
			list = append(list, fmt.Sprintf("%s (virtio, module virtio_net)", filepath.Base(card)))
		}
	}
	return list
}

func idle(device string) bool {
	_, err := os.Lstat(filepath.Join(device, "driver"))
	return errors.Is(err, os.ErrNotExist)
}

func hex(device, name string) string { return strings.TrimPrefix(attribute(device, name), "0x") }

// maxAttribute is the size of a page, which bounds attributes of sysfs.
const maxAttribute = 4 << 10

func attribute(device, name string) string {
	b, err := plainfile.Read(filepath.Join(device, name), maxAttribute)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
