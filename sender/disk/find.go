package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/internal/printable"
)

// A Device is a block device with a file system.
type Device struct {
	// Name is the kernel's, such as vda1.
	Name string
	Superblock
}

// String names the device and its file system.
func (d *Device) String() string {
	s := fmt.Sprintf("%s (%s UUID=%s", d.Name, d.Type, printable.Escape(d.UUID))
	if d.Label != "" {
		s += " LABEL=" + printable.Escape(d.Label)
	}
	return s + ")"
}

// System is where a system shows its devices and mounts. The zero value is the running one: /sys, /dev and
// /proc/self/mountinfo.
type System struct{ Sys, Dev, MountInfo string }

// SysDir returns where sysfs is mounted.
func (s System) SysDir() string { return orDefault(s.Sys, "/sys") }

func (s System) sys(elem ...string) string {
	return filepath.Join(append([]string{s.SysDir()}, elem...)...)
}

func (s System) dev(name string) string { return filepath.Join(orDefault(s.Dev, "/dev"), name) }

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// NotFoundError says that no device has the file system.
type NotFoundError struct {
	Spec Spec
	// There are the devices that have one.
	There []*Device
	// Unread lists devices that could not be read.
	Unread []error
}

// Error names what is there instead.
func (e *NotFoundError) Error() string {
	var there []string
	for _, d := range e.There {
		there = append(there, d.String())
	}
	if len(there) == 0 {
		there = []string{"none"}
	}
	text := fmt.Sprintf("no disk has the file system %s; there is %s", printable.Escape(e.Spec.String()), strings.Join(there, ", "))
	for _, err := range e.Unread {
		text += "; not read: " + err.Error()
	}
	return text
}

// RefusedError says why a file system is not written to.
type RefusedError struct {
	Spec Spec
	Text string
	// Hint says what to do.
	Hint string
}

// Error names the file system.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("file system %s: %s", printable.Escape(e.Spec.String()), e.Text)
}

// Hints returns the hint.
func (e *RefusedError) Hints() []string { return []string{e.Hint} }

// Find returns the device with a file system. The error is a *NotFoundError, a *RefusedError, or says why the list of devices
// cannot be read.
func (s System) Find(spec Spec) (*Device, error) {
	names, err := os.ReadDir(s.sys("class/block"))
	if err != nil {
		return nil, err
	}
	missing := &NotFoundError{Spec: spec}
	var found []*Device
	for _, entry := range names {
		d, err := s.read(entry.Name())
		switch {
		case err != nil:
			if !errors.Is(err, ErrNoFilesystem) {
				missing.Unread = append(missing.Unread, err)
			}
		case spec.matches(d):
			found = append(found, d)
		default:
			missing.There = append(missing.There, d)
		}
	}
	switch len(found) {
	case 0:
		return nil, missing
	case 1:
		return found[0], refusal(spec, found[0].Trouble, found[0].Remedy)
	}
	return nil, s.ambiguous(spec, found)
}

func refusal(spec Spec, trouble, remedy string) error {
	if trouble == "" {
		return nil
	}
	return &RefusedError{Spec: spec, Text: trouble, Hint: remedy}
}

// ambiguous returns the error for a file system on several devices. If one of them lies on the others, that is the reason.
func (s System) ambiguous(spec Spec, found []*Device) error {
	var names []string
	for _, d := range found {
		if above, remedy := s.above(d.Name); above != "" {
			return refusal(spec, above, remedy)
		}
		names = append(names, d.Name)
	}
	return refusal(spec, "several devices have it: "+strings.Join(names, ", "), "give one of them another UUID or label, or detach it")
}

// read reads the superblock of a device.
func (s System) read(name string) (*Device, error) {
	size, err := s.size(name)
	if err != nil {
		return nil, err
	}
	if size == 0 || unreadable(name) {
		return nil, ErrNoFilesystem
	}
	f, err := os.OpenFile(s.dev(name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	sb, err := ReadSuperblock(f, size)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, unix.ENOMEDIUM), errors.Is(err, unix.ENXIO):
		return nil, ErrNoFilesystem
	case err != nil:
		return nil, err
	}
	d := &Device{Name: name, Superblock: *sb}
	if above, remedy := s.above(name); above != "" {
		d.Trouble, d.Remedy = above, remedy
	}
	return d, nil
}

// unreadable reports whether a device is none to look at: floppies take seconds to say that they are empty, and what is in
// memory is gone after the reboot.
func unreadable(name string) bool {
	for _, prefix := range []string{"fd", "sr", "ram", "zram"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
			return true
		}
	}
	return false
}

// size returns the size of a device in bytes.
func (s System) size(name string) (int64, error) {
	b, err := os.ReadFile(s.sys("class/block", name, "size"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // it has just gone
	}
	if err != nil {
		return 0, err
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || sectors < 0 || sectors > 1<<53 {
		return 0, fmt.Errorf("%s: size %q", name, b)
	}
	return sectors << 9, nil
}

// above says why a device of a running system will not be there, or not alone, in a capture kernel.
func (s System) above(name string) (trouble, remedy string) {
	remedy = "name a file system on a plain disk or partition, or another target"
	if id, err := os.ReadFile(s.sys("class/block", name, "dm/uuid")); err == nil {
		kind, _, _ := strings.Cut(string(id), "-")
		what := map[string]string{
			"LVM": "it is on a logical volume (LVM)", "CRYPT": "it is encrypted (dm-crypt)", "mpath": "it is on a multipath device",
		}[kind]
		if what == "" {
			what = "it is on a device of the device mapper"
		}
		return what + ", which a capture kernel does not set up", remedy
	}
	real, err := filepath.EvalSymlinks(s.sys("class/block", name))
	if err != nil {
		return "", "" // it has just gone
	}
	for _, dir := range []string{real, filepath.Dir(real)} { // a partition is in the directory of its disk
		if _, err := os.Stat(filepath.Join(dir, "md")); err == nil {
			return "it is on a software RAID (md), which a capture kernel does not assemble", remedy
		}
		if _, err := os.Stat(filepath.Join(dir, "loop")); err == nil {
			return "it is in a file of another file system (a loop device)", remedy
		}
	}
	if holders, err := os.ReadDir(s.sys("class/block", name, "holders")); err == nil && len(holders) > 0 {
		return fmt.Sprintf("its device %s is a part of %s", name, holders[0].Name()), remedy
	}
	return "", ""
}
