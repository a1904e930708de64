package oops

// Kind is what went wrong. The names are stable: names are added and never change.
type Kind string

// The kinds of crashes.
const (
	NullDereference       Kind = "null-dereference"   // data at an address in the first page
	CallThroughNull       Kind = "call-through-null"  // the program counter is in the first page
	PageFault             Kind = "page-fault"         // any other address
	GeneralProtection     Kind = "general-protection" // x86: a non-canonical address, mostly
	StackSegment          Kind = "stack-segment"      // x86: the same, through the stack pointer
	ExternalAbort         Kind = "external-abort"     // arm: the bus or a device reported an error
	Bug                   Kind = "bug"                // BUG(), BUG_ON()
	Warning               Kind = "warning"            // WARN(), with or without panic_on_warn
	SoftLockup            Kind = "soft-lockup"
	HardLockup            Kind = "hard-lockup"
	WorkqueueLockup       Kind = "workqueue-lockup"
	HungTask              Kind = "hung-task"
	RCUStall              Kind = "rcu-stall"
	StackOverflow         Kind = "stack-overflow"
	StackCorruption       Kind = "stack-corruption" // stack protector
	OutOfMemory           Kind = "oom"
	NMI                   Kind = "nmi"
	MachineCheck          Kind = "mce"
	Sysrq                 Kind = "sysrq"
	InitKilled            Kind = "init-killed"
	KASAN                 Kind = "kasan"
	KMSAN                 Kind = "kmsan"
	KCSAN                 Kind = "kcsan"
	KFENCE                Kind = "kfence"
	UBSAN                 Kind = "ubsan"
	DivideError           Kind = "divide-error"
	InvalidOpcode         Kind = "invalid-opcode"
	DoubleFault           Kind = "double-fault"
	Int3                  Kind = "int3"
	Alignment             Kind = "alignment"
	CFI                   Kind = "cfi" // control flow integrity: kCFI, BTI, IBT, pointer authentication
	Refcount              Kind = "refcount"
	Lockdep               Kind = "lockdep" // lock order and RCU usage
	Spinlock              Kind = "spinlock"
	ListCorruption        Kind = "list-corruption"
	UserCopy              Kind = "usercopy" // hardened usercopy
	Fortify               Kind = "fortify"  // FORTIFY_SOURCE
	DebugObjects          Kind = "debug-objects"
	SlabCorruption        Kind = "slab-corruption"
	MemoryLeak            Kind = "memory-leak"
	SchedulingWhileAtomic Kind = "scheduling-while-atomic"
	SleepingWhileAtomic   Kind = "sleeping-while-atomic"
	BadPageState          Kind = "bad-page-state"
	RootFilesystem        Kind = "root-filesystem" // no root file system, or no init in it
	Panic                 Kind = "panic"           // any other call of panic()
	Unknown               Kind = "unknown"         // a headline of another form
)
