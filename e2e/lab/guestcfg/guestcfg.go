// Package guestcfg is the configuration of the crash lab's guest program: a JSON file in
// the initramfs that the host writes.
//
// Both sides are built from the same tree for every boot, so the file has no version. The
// guest trusts it.
package guestcfg

// Path is the path of the configuration.
const Path = "/lab.json"

// Paths of other files in the initramfs of the system kernel, and messages of the guest.
const (
	KernelPath  = "/boot/vmlinuz"   // image of the capture kernel
	InitrdPath  = "/boot/crash.img" // initramfs of the capture kernel
	KexecLoader = "/kexec/ld.so"    // dynamic loader for KexecPath
	KexecPath   = "/kexec/kexec"    // kexec(8), with its libraries beside it
	KexecLibs   = "/kexec"          // directory of those libraries
	ModulesDir  = "/modules"        // decompressed kernel modules
	PatchPath   = "/crashpatch.ko"  // live patch for the module crashmod
	ReadyToArm  = "armed"           // console words of the guest, after "lab: "
	WantBalloon = "want balloon"    // asks the host to inflate the balloon
	VmcoreSize  = "vmcore size="    // before the decimal byte count
	CopyDone    = "vmcore copied"   // last message of a good capture
	Crashing    = "crashing now"    // the line before the panic
	AwaitsOrder = "awaits an order" // the guest reads DiskOrder until it has contents
	Spins       = "crashmod: spins" // line of the module that crashes: its CPU will not do anything else
)

// Hostname is the nodename of every guest whose Config has none.
const Hostname = "lab-guest"

// BalloonMiB is how much memory the host takes when a busy guest asks.
const BalloonMiB = 16

// Serials of the virtio disks.
const (
	DiskVmcore  = "vmcore"
	DiskRecords = "records"
	DiskFiles   = "files"
	DiskOrder   = "order"
)

// OrderLen is the size of the order at the start of DiskOrder, with zeros up to its end. To a guest with CrashByOrder it is a way
// to crash. To one with Config.Ordered it is an Order as JSON, and the initramfs of the capture kernel follows.
const OrderLen = 4096

// OrderSlack is what DiskOrder has at least after the initramfs, so that the guest reads whole blocks.
const OrderSlack = 1 << 20

// CrashByOrder is a Config.Crash: the guest waits for an order on DiskOrder.
const CrashByOrder = "order"

// System calls that load the capture kernel.
const (
	KexecLoad     = "c" // kexec_load(2), prepared by kexec(8)
	KexecFileLoad = "s" // kexec_file_load(2)
)

// An Order is what a guest waits for before it loads a capture kernel.
type Order struct {
	CaptureAppend string // see Config
	Time          int64  // see Config
	InitrdLen     int64  // bytes of the initramfs of the capture kernel
}

// Config is one boot of the system kernel (all fields) or of the capture kernel (Modules
// only).
type Config struct {
	// Modules are paths of module files, in the order of loading.
	Modules []string
	// Kexec is KexecLoad or KexecFileLoad.
	Kexec string
	// Ordered means that the capture kernel's initramfs and command line come with an Order on DiskOrder.
	Ordered bool
	// CaptureAppend is the command line of the capture kernel.
	CaptureAppend string
	// FixKallsyms adds _text to /proc/kallsyms for kexec(8). arm64 kernels do not
	// export it.
	FixKallsyms bool
	// Busy fills the memory before the panic.
	Busy bool
	// Records asks for the kernel's records on DiskRecords.
	Records bool
	// Time is set on the system kernel's clock, in seconds since 1970. 0 does not set it.
	Time int64
	// Crash is how to crash: "sysrq", "init-exit", CrashByOrder, or with the module crashmod loaded one of its kinds or another
	// that the guest program knows.
	Crash string
	// CrashCPU is the CPU on which the process runs that crashes the kernel by these kinds.
	CrashCPU int
	// Nodename is the nodename. Empty means Hostname.
	Nodename string
}
