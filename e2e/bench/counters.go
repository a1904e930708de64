package bench

import (
	"fmt"
	"strconv"
	"strings"
)

// Columns of /proc/net/dev behind the name of the device: eight for what it received, then eight for what it sent.
const (
	receivedColumn = 0
	sentColumn     = 8
	deviceColumns  = 16
)

// parseCounters returns the bytes that a device has sent and received, from the text of /proc/net/dev.
func parseCounters(text, device string) (sent, received uint64, err error) {
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) != device {
			continue
		}
		columns := strings.Fields(rest)
		if len(columns) < deviceColumns {
			return 0, 0, fmt.Errorf("/proc/net/dev: %d columns for %s, want %d", len(columns), device, deviceColumns)
		}
		if received, err = strconv.ParseUint(columns[receivedColumn], 10, 64); err == nil {
			sent, err = strconv.ParseUint(columns[sentColumn], 10, 64)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/net/dev: %s: %w", device, err)
		}
		return sent, received, nil
	}
	return 0, 0, fmt.Errorf("/proc/net/dev has no device %s", device)
}
