package tasks

// State is what a task is doing: its state and exit_state in one (include/linux/sched.h since 4.14).
type State uint32

// The bits of a State. Freezable and frozen tasks sleep as the other bits say.
const (
	stateInterruptible   = 0x1
	stateUninterruptible = 0x2
	stateStopped         = 0x4
	stateTraced          = 0x8
	stateExitDead        = 0x10
	stateZombie          = 0x20
	stateParked          = 0x40
	stateDead            = 0x80
	stateWaking          = 0x200
	stateNoLoad          = 0x400
	stateNew             = 0x800
	stateRTLockWait      = 0x1000
)

// names has the state's two letters in crash for the first row whose bits are all set.
var names = []struct {
	bits State
	name string
}{
	{stateExitDead, "DE"},
	{stateZombie, "ZO"},
	{stateDead, "DE"},
	{stateParked, "PA"},
	{stateTraced, "TR"},
	{stateStopped, "ST"},
	{stateUninterruptible | stateNoLoad, "ID"},
	{stateUninterruptible, "UN"},
	{stateRTLockWait, "UN"},
	{stateInterruptible, "IN"},
	{stateNew, "NE"},
	{stateWaking, "WA"},
}

// String returns the state as the ps command of crash prints it: RU, IN, UN, ID, ST, TR, PA, ZO, DE, NE, WA; ?? for others.
func (s State) String() string {
	for _, n := range names {
		if s&n.bits == n.bits {
			return n.name
		}
	}
	if s == 0 {
		return "RU"
	}
	return "??"
}

// Dead reports whether the task has exited: it is a zombie or about to vanish.
func (s State) Dead() bool { return s&(stateExitDead|stateZombie|stateDead) != 0 }

// Blocked reports whether the task waits without being interruptible and counts as load, as one that hangs does.
func (s State) Blocked() bool { return s.String() == "UN" }
