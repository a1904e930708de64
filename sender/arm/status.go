package arm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/sender/arm/reservation"
	"github.com/corehaul/corehaul/sender/config"
)

// State is the answer to the question whether a crash would give a dump.
type State string

// The states.
const (
	// Ready means that an image of this program is loaded, and nothing speaks against a dump.
	Ready State = "ready"
	// Doubtful means that an image is loaded, and at least one finding is a problem.
	Doubtful State = "doubtful"
	// NotArmed means that no image of this program is loaded.
	NotArmed State = "not-armed"
)

// A Finding is something that Look has found.
type Finding struct {
	// Code names the kind of finding. The list only grows.
	Code Code `json:"code"`
	// Problem means that a crash may give no dump. Others are notes.
	Problem bool `json:"problem"`
	// What is wrong, and where.
	What string `json:"what"`
	// Do says what to do.
	Do string `json:"do"`
	// Rearm means that the image is not what an Arm would pack now, and that an Arm is all it takes.
	Rearm bool `json:"rearm"`
}

// Code is a kind of finding.
type Code string

// The codes. See the functions that make them.
const (
	NoReservation  Code = "no-reservation"
	SmallReserved  Code = "reservation-too-small"
	Unloaded       Code = "not-loaded"
	OthersImage    Code = "image-of-another-program"
	Interrupted    Code = "arm-interrupted"
	OtherKernel    Code = "image-of-another-kernel"
	ProgramChanged Code = "program-changed"
	KernelChanged  Code = "kernel-changed"
	ConfigGone     Code = "configuration-unreadable"
	ConfigChanged  Code = "configuration-changed"
	KeyGone        Code = "key-unreadable"
	KeyChanged     Code = "key-changed"
	SiteGone       Code = "site-program-unreadable"
	SiteChanged    Code = "site-program-changed"
	DriverMissing  Code = "driver-missing"
	DiskMissing    Code = "file-system-missing"
	NoCard         Code = "no-network-card"
	NoInterface    Code = "no-such-interface"
	NetworkUnknown Code = "network-unknown"
	NetworkPartly  Code = "network-partly-copied"
	NetworkChanged Code = "network-changed"
	NotReachable   Code = "target-not-reachable"
	SysctlDiffers  Code = "sysctl-differs"
	OopsNoPanic    Code = "oops-does-not-panic"
	OtherAtBoot    Code = "other-program-at-boot"
	NotArmedAtBoot Code = "not-armed-at-boot"
)

// A Status is what Look says.
type Status struct {
	State State `json:"state"`
	// Kernel is the release of the running kernel.
	Kernel string `json:"kernel"`
	// Reserved is the memory for a capture kernel, in bytes. Needed is an estimate for the loaded image, 0 without one.
	Reserved uint64 `json:"reserved"`
	Needed   uint64 `json:"needed"`
	// Loaded describes the loaded image. It is nil if none of this program is loaded.
	Loaded *Record `json:"loaded"`
	// Sysctls are the settings that decide whether a fault becomes a panic, as far as the kernel has them.
	Sysctls  []Sysctl  `json:"sysctls"`
	Findings []Finding `json:"findings"`
}

// A Sysctl is a setting of the running kernel.
type Sysctl struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A Probe returns why a target does not answer, with the keys of a configuration.
type Probe func(ctx context.Context, c *config.File, to string) error

// Look says whether a crash of the running system, whose root is / but for tests, would give a dump. ways is that of Options. probe asks
// targets; nil asks none. The error is for a machine that cannot be looked at, such as without root's rights.
func Look(ctx context.Context, root string, ways Ways, probe Probe) (*Status, error) {
	if root == "" {
		root = "/"
	}
	s := &Status{Findings: []Finding{}}
	var err error
	if s.Kernel, err = release(root); err != nil {
		return nil, err
	}
	reserved, err := reservation.Read(root)
	if err != nil {
		return nil, err
	}
	s.Reserved = reserved.Size
	now, err := findLoaded(root, reserved.Areas)
	if err != nil {
		return nil, err
	}
	s.Loaded, s.State = now.record, NotArmed
	s.Sysctls = readSysctls(root)
	if now.record == nil {
		s.notLoaded(root, reserved, now)
		return s, nil
	}
	s.State, s.Needed = Ready, now.record.Needs
	s.check(ctx, root, now, ways, probe)
	for _, f := range s.Findings {
		if f.Problem {
			s.State = Doubtful
		}
	}
	return s, nil
}

// Stale reports whether an Arm would load another image than the one that is loaded, and nothing else is needed for it.
func (s *Status) Stale() bool {
	return slices.ContainsFunc(s.Findings, func(f Finding) bool { return f.Rearm })
}

// problem, note and stale add a finding.
func (s *Status) problem(code Code, do, format string, args ...any) {
	s.Findings = append(s.Findings, Finding{Code: code, Problem: true, What: fmt.Sprintf(format, args...), Do: do})
}

func (s *Status) note(code Code, do, format string, args ...any) {
	s.Findings = append(s.Findings, Finding{Code: code, What: fmt.Sprintf(format, args...), Do: do})
}

// stale adds a problem that another Arm mends.
func (s *Status) stale(code Code, format string, args ...any) {
	s.problem(code, rearm(s.Loaded), format, args...)
	s.Findings[len(s.Findings)-1].Rearm = true
}

// has reports whether there is a finding of a code.
func (s *Status) has(code Code) bool {
	return slices.ContainsFunc(s.Findings, func(f Finding) bool { return f.Code == code })
}

// notLoaded says why no image of ours is loaded.
func (s *Status) notLoaded(root string, reserved *reservation.State, now loaded) {
	if reserved.Size == 0 {
		e := notReserved(root, reserved)
		s.problem(NoReservation, strings.Join(e.Hints(), "; "), "%s", e.Error())
		return
	}
	const again = "run 'corehaul-send arm --config FILE', or 'systemctl restart " + armUnit + "'"
	switch {
	case now.unsure:
		s.problem(Interrupted, again, "an arm was interrupted: it is not known what is loaded")
	case now.any:
		e := &OtherError{Who: otherLoader(root)}
		s.problem(OthersImage, strings.Join(e.Hints(), "; "), "%s", e.Error())
	case now.last != nil:
		s.problem(Unloaded, again, "the image that was loaded at %s is not loaded any more", now.last.Time.Format("2006-01-02 15:04:05Z"))
	default:
		s.problem(Unloaded, again, "no capture kernel is loaded")
	}
}

// readSysctls reads the settings that the kernel has.
func readSysctls(root string) []Sysctl {
	list := []Sysctl{}
	for _, name := range config.Sysctls {
		if v, err := readSysctl(root, name); err == nil {
			list = append(list, Sysctl{name, v})
		}
	}
	return list
}

func readSysctl(root, name string) (string, error) {
	text, err := plainfile.Read(sysctlPath(root, name), maxSmall)
	return strings.TrimSpace(string(text)), err
}
