package reservation

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/sender/arm/cmdline"
)

// Limits of files of the kernel: /proc/iomem has a line for each resource.
const (
	maxIOMem = 16 << 20
	maxLine  = 64 << 10
	maxSmall = 64 << 10
)

// A State is what the running kernel has reserved.
type State struct {
	// Size is the size of the reserved memory in bytes, without the part below 4 GiB that goes with ",high". 0 means that no
	// capture kernel can be loaded.
	Size uint64
	// Areas are the physical addresses, half-open. They are empty if /proc/iomem shows none to this user.
	Areas []Area
	// Requests are the crashkernel= words of the running kernel. Unread has the errors of those that nobody understands.
	Requests []Request
	Unread   []error
	// Memory is the memory of the machine in bytes, 0 if /proc/iomem shows none to this user.
	Memory uint64
}

// An Area is a half-open range of physical addresses.
type Area struct{ Start, End uint64 }

// ErrNoKexec means that the running kernel cannot load a capture kernel at all.
var ErrNoKexec error = noKexecError{}

type noKexecError struct{}

func (noKexecError) Error() string {
	return "this kernel has no kexec for crashes (CONFIG_CRASH_DUMP and CONFIG_KEXEC or CONFIG_KEXEC_FILE)"
}

// Hints says what to do.
func (noKexecError) Hints() []string {
	return []string{"boot a kernel that has it, as those of the distributions do; a container has the kernel of its host, so run this there"}
}

// Read reads the state of the kernel that runs below root, which is / but for tests. The error is ErrNoKexec, or that of a
// file.
func Read(root string) (*State, error) {
	text, err := plainfile.Read(filepath.Join(root, "sys/kernel/kexec_crash_size"), maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoKexec
	}
	if err != nil {
		return nil, err
	}
	s := &State{}
	if s.Size, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err != nil {
		return nil, fmt.Errorf("/sys/kernel/kexec_crash_size has %q, which is no number", text)
	}
	line, err := plainfile.Read(filepath.Join(root, "proc/cmdline"), maxSmall)
	if err != nil {
		return nil, err
	}
	for _, value := range cmdline.Values(string(line), "crashkernel") {
		r, err := ParseRequest(value)
		if err != nil {
			s.Unread = append(s.Unread, err)
			continue
		}
		s.Requests = append(s.Requests, r)
	}
	f, err := plainfile.Open(filepath.Join(root, "proc/iomem"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return s, s.readIOMem(f)
}

// readIOMem reads /proc/iomem (kernel/resource.c, r_show): "%0*llx-%0*llx : NAME", two blanks before it for each level. The
// last address belongs to the range. To others than root, all addresses are 0.
func (s *State) readIOMem(r io.Reader) error {
	sc := bufio.NewScanner(io.LimitReader(r, maxIOMem))
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		addresses, name, ok := strings.Cut(sc.Text(), " : ")
		if !ok || name != "Crash kernel" && name != "System RAM" {
			continue
		}
		area, err := parseArea(strings.TrimSpace(addresses))
		if err != nil {
			return fmt.Errorf("/proc/iomem: %q: %w", sc.Text(), err)
		}
		switch {
		case area.Start == 0 && area.End == 1:
			// hidden
		case name == "Crash kernel":
			s.Areas = append(s.Areas, area)
		default:
			s.Memory += area.End - area.Start
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("/proc/iomem: %w", err)
	}
	return nil
}

func parseArea(s string) (Area, error) {
	from, to, _ := strings.Cut(s, "-")
	start, err := strconv.ParseUint(from, 16, 64)
	if err != nil {
		return Area{}, err
	}
	last, err := strconv.ParseUint(to, 16, 64)
	if err != nil {
		return Area{}, err
	}
	if last < start || last+1 == 0 {
		return Area{}, errors.New("ends before it begins")
	}
	return Area{start, last + 1}, nil
}

// Missing says why the kernel has reserved nothing. Size must be 0.
func (s *State) Missing() string {
	switch {
	case len(s.Unread) > 0:
		return "the kernel understands no crashkernel= on its command line: " + s.Unread[0].Error()
	case len(s.Requests) == 0:
		return "crashkernel= is not on the command line of the running kernel"
	}
	last := s.Requests[len(s.Requests)-1]
	if s.Memory > 0 && !last.Auto && last.Size(s.Memory) == 0 {
		return fmt.Sprintf("crashkernel=%s reserves nothing on a machine with %s", last.Value, bytesize.Format(s.Memory))
	}
	return fmt.Sprintf("the kernel reserved nothing for crashkernel=%s: it had no room for that in one piece, or somebody gave it back "+
		"(/sys/kernel/kexec_crash_size)", last.Value)
}

// large is the memory from which on a machine gets more: its page tables, and the list of its memory, are larger.
const (
	large      = 32 << 30
	small      = 256 << 20
	forLarge   = 512 << 20
	stepOfSize = 64 << 20
)

// Recommend returns the size to reserve, for a machine with an amount of memory and an image that needs at least need bytes.
func Recommend(memory, need uint64) uint64 {
	size := uint64(small)
	if memory >= large {
		size = forLarge
	}
	return max(size, (need+stepOfSize-1)/stepOfSize*stepOfSize)
}
