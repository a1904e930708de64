package disk

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Form is how a file system is named.
const Form = "UUID=... or LABEL=... or /dev/NAME"

// A Spec names a file system. At most one field is set. The zero Spec names none.
type Spec struct {
	// UUID is in lower case, with dashes.
	UUID  string
	Label string
	// Device is the kernel's name of a block device, without /dev/.
	Device string
}

// maxLabel is the longest label that a file system can have: that of Btrfs.
const maxLabel = 255

// ParseSpec reads the Form.
func ParseSpec(s string) (Spec, error) {
	key, value, _ := strings.Cut(s, "=")
	dev, isDev := strings.CutPrefix(s, "/dev/")
	switch {
	case isDev && (strings.HasPrefix(dev, "disk/") || strings.HasPrefix(dev, "mapper/")):
		return Spec{}, fmt.Errorf("a capture kernel has no %s, write UUID=... or LABEL=... ('lsblk -f' shows them)", s)
	case isDev && dev != "" && !strings.ContainsAny(dev, "/\x00") && dev != "." && dev != "..":
		return Spec{Device: dev}, nil
	case key == "LABEL" && value != "" && len(value) <= maxLabel && !strings.ContainsRune(value, 0):
		return Spec{Label: value}, nil
	case key == "UUID" && isUUID(value):
		return Spec{UUID: strings.ToLower(value)}, nil
	case key == "PARTUUID" || key == "PARTLABEL":
		return Spec{}, fmt.Errorf("%s names a partition, write UUID=... or LABEL=... of the file system on it ('lsblk -f' shows them)", s)
	case key == "UUID":
		return Spec{}, fmt.Errorf("%q is no UUID, which has 32 hex digits: 8-4-4-4-12 ('lsblk -f' shows it)", value)
	}
	return Spec{}, fmt.Errorf("%q names no file system, write %s", s, Form)
}

func isUUID(s string) bool {
	groups := strings.Split(s, "-")
	if len(groups) != 5 {
		return false
	}
	for i, n := range []int{8, 4, 4, 4, 12} {
		if _, err := hex.DecodeString(groups[i]); err != nil || len(groups[i]) != n {
			return false
		}
	}
	return true
}

// IsZero reports whether s names no file system.
func (s Spec) IsZero() bool { return s == Spec{} }

// String writes s as ParseSpec reads it.
func (s Spec) String() string {
	switch {
	case s.UUID != "":
		return "UUID=" + s.UUID
	case s.Label != "":
		return "LABEL=" + s.Label
	case s.Device != "":
		return "/dev/" + s.Device
	}
	return ""
}

// matches reports whether a device is the one that s names.
func (s Spec) matches(d *Device) bool {
	switch {
	case s.UUID != "":
		return d.UUID == s.UUID
	case s.Label != "":
		return d.Label == s.Label
	}
	return s.Device != "" && s.Device == d.Name
}
