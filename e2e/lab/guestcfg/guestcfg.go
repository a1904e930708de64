// Package guestcfg is what the crash lab's host side tells its guest program
// in a JSON file inside the initramfs.
//
// Both sides are built from the same tree for every boot, so there is no
// version. The file comes from the host and is trusted.
package guestcfg

// Path is where the guest finds its configuration.
const Path = "/lab.json"

// Places of the other files inside the initramfs of the system kernel.
const (
	KernelPath  = "/boot/vmlinuz"   // image of the capture kernel
	InitrdPath  = "/boot/crash.img" // initramfs of the capture kernel
	KexecLoader = "/kexec/ld.so"    // dynamic loader for KexecPath
	KexecPath   = "/kexec/kexec"    // kexec(8), with its libraries beside it
	KexecLibs   = "/kexec"          // directory of those libraries
	ModulesDir  = "/modules"        // decompressed kernel modules
	ReadyToArm  = "armed"           // console words of the guest, after "lab: "
	WantBalloon = "want balloon"    // the host shall inflate the balloon now
	VmcoreSize  = "vmcore size="    // followed by the decimal byte count
	CopyDone    = "vmcore copied"   // last word of a good capture
	Crashing    = "crashing now"    // the line before the panic
)

// Hostname is the nodename of every guest.
const Hostname = "lab-guest"

// BalloonMiB is how much the host takes when a busy guest asks.
const BalloonMiB = 16

// Serials of the virtio disks.
const (
	DiskVmcore  = "vmcore"
	DiskRecords = "records"
	DiskFiles   = "files"
)

// Ways to load the capture kernel.
const (
	KexecLoad     = "c" // kexec_load(2), prepared by kexec(8)
	KexecFileLoad = "s" // kexec_file_load(2)
)

// Config is one boot of the system kernel (all fields) or of the capture
// kernel (Modules alone).
type Config struct {
	// Modules are paths of module files, in the order to load them.
	Modules []string
	// Kexec is KexecLoad or KexecFileLoad.
	Kexec string
	// CaptureAppend is the command line of the capture kernel.
	CaptureAppend string
	// FixKallsyms gives kexec(8) a /proc/kallsyms that has _text, which
	// arm64 kernels do not export and kexec(8) asks for.
	FixKallsyms bool
	// Busy fills the memory before the panic.
	Busy bool
	// Records asks for the kernel's own account of itself on DiskRecords.
	Records bool
	// Time is set on the system kernel's clock, in seconds since 1970; 0 leaves it alone.
	Time int64
	// Crash is how to crash: "sysrq" or "init-exit".
	Crash string
}
