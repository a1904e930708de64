package signature

import "github.com/corehaul/corehaul/kernel/oops"

// class is a set of kinds of crashes that one bug may show as, or that memory cannot tell apart. Its name is the first word of a signature.
type class string

const (
	fault           class = "fault"     // data at an address that is wrong in any way
	jump            class = "jump"      // execution at an address without code; the culprit is the caller
	bug             class = "bug"       // the kernel's own checks: BUG, WARN and what uses them
	stall           class = "stall"     // code that does not end, found by any watchdog
	hungTask        class = "hung-task" // a task that waits; the culprit is who waits
	panicked        class = "panic"     // a call of panic()
	stackOverflow   class = "stack-overflow"
	stackCorruption class = "stack-corruption"
	divide          class = "divide-error"
	sysrq           class = "sysrq"
	initKilled      class = "init-killed"
	outOfMemory     class = "oom"
	nmi             class = "nmi"
	machineCheck    class = "mce"
	rootFilesystem  class = "root-filesystem"
)

// classes are the kinds of kernel/oops whose class has another name than they.
var classes = map[oops.Kind]class{
	oops.NullDereference: fault, oops.PageFault: fault, oops.GeneralProtection: fault, oops.StackSegment: fault,
	oops.CallThroughNull: jump,
	oops.Bug:             bug, oops.Warning: bug, oops.InvalidOpcode: bug, oops.Refcount: bug, oops.ListCorruption: bug, oops.UserCopy: bug, oops.Fortify: bug, oops.DebugObjects: bug,
	oops.SoftLockup: stall, oops.HardLockup: stall, oops.RCUStall: stall,
	oops.DoubleFault: stackOverflow,
}

func classOf(k oops.Kind) class {
	if c, ok := classes[k]; ok {
		return c
	}
	return class(k)
}

// placeless reports whether the place of a crash is chance: whoever asked for memory, whatever an NMI interrupted.
func (c class) placeless() bool {
	switch c {
	case sysrq, initKilled, outOfMemory, nmi, machineCheck, rootFilesystem:
		return true
	}
	return false
}

// inMemory reports whether memory shows crashes of the class as the log does. The culprits of all others are those of kernel/oops, which
// also looks where locks were taken and memory was allocated.
func (c class) inMemory() bool {
	switch c {
	case fault, jump, bug, stall, hungTask, stackOverflow, stackCorruption, divide:
		return true
	}
	return false
}
