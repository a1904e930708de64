package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
)

// maxMountInfo bounds what is read of the list of mounts.
const maxMountInfo = 16 << 20

// A mountPoint is a mount of the running system.
type mountPoint struct {
	// at is the directory, and root what of the file system is mounted there.
	at, root string
}

// CheckDir returns what is wrong with a directory of the file system on d, if the running system has it mounted so that it can
// be seen. The path of a directory within its file system is often another one than in the running system: that is the
// mistake to find.
func (s System) CheckDir(d *Device, dir string) error {
	mounts, err := s.mountsOf(d)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		below, ok := belowRoot(m.root, dir)
		if !ok {
			continue
		}
		info, err := os.Stat(path.Join(m.at, below))
		switch {
		case err == nil && info.IsDir():
			return nil
		case err == nil:
			return fmt.Errorf("%s is no directory", path.Join(m.at, below))
		case errors.Is(err, fs.ErrNotExist):
			return missingDir(d, m, dir, path.Join(m.at, below))
		}
		return err
	}
	return nil
}

// missingDir names what the directory is in the running system, and what may have been meant.
func missingDir(d *Device, m mountPoint, dir, here string) error {
	text := fmt.Sprintf("%s has no directory %s: it is mounted at %s, so that would be %s", d.Name, dir, m.at, here)
	if below, ok := belowRoot(m.at, dir); ok && m.at != "/" {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			text += fmt.Sprintf("; %s is %s there", dir, path.Join(m.root, below))
		}
	}
	return errors.New(text)
}

// belowRoot returns the path of dir within root.
func belowRoot(root, dir string) (string, bool) {
	if root == "/" {
		return dir, true
	}
	rest, ok := strings.CutPrefix(dir, root)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// mountsOf lists where a device is mounted: Documentation/filesystems/proc.rst, /proc/<pid>/mountinfo. Btrfs has device numbers
// of its own there, so the device's name counts.
func (s System) mountsOf(d *Device) ([]mountPoint, error) {
	text, err := plainfile.Read(orDefault(s.MountInfo, "/proc/self/mountinfo"), maxMountInfo)
	if err != nil {
		return nil, err
	}
	number, _ := os.ReadFile(s.sys("class/block", d.Name, "dev")) // without it, the name counts
	var list []mountPoint
	for line := range strings.Lines(string(text)) {
		before, after, ok := strings.Cut(line, " - ")
		f, source := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(source) < 2 {
			continue
		}
		if f[2] == strings.TrimSpace(string(number)) || unescape(source[1]) == "/dev/"+d.Name {
			list = append(list, mountPoint{at: unescape(f[4]), root: unescape(f[3])})
		}
	}
	return list, nil
}

// unescape replaces the octal escapes of mountinfo, such as \040 for a blank.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
