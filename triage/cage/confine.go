package cage

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// confine takes from this process, for good, all that it does not need to read the working directory, or, without files, anything
// at all. It returns the layers that this kernel lacks.
func confine(limits Limits, files bool) (missing []string, err error) {
	yield()
	// systemd sends the signals of a service's end to all of its processes. This one would end before its parent knows why.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	startThreads()
	if err := limit(limits); err != nil {
		return nil, err
	}
	// Nobody but root may read the memory of this process, or attach a debugger to it.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return nil, err
	}
	if abi, _ := llsys.LandlockGetABIVersion(); abi < 1 {
		missing = append(missing, "landlock")
	} else if err := confineFiles(files); err != nil {
		return nil, err
	}
	return missing, confineCalls()
}

// yield lets the receiver and all else on the machine go first: with processor time, and with memory if it runs out.
func yield() {
	_ = unix.Setpriority(unix.PRIO_PGRP, 0, 19) // all threads: the process is a group of its own
	// This file cannot be written everywhere (a read-only /proc), and nothing but the order of victims depends on it.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
}

// maxCPUs is the number of CPUs that a child uses, however many there are. maxThreads is more than the Go runtime ever uses for them:
// one for each CPU, one for each goroutine that waits in a system call, and a few of its own. A child has one goroutine that reads files.
const (
	maxCPUs    = 2
	maxThreads = 16
)

// startThreads starts all threads that the Go runtime may need. It keeps them, so it never has to start one when that is forbidden.
// A child that could start threads could start as many as the whole service may have.
func startThreads() {
	runtime.GOMAXPROCS(maxCPUs)
	var started, ended sync.WaitGroup
	end := make(chan struct{})
	started.Add(maxThreads)
	for range maxThreads {
		ended.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			started.Done()
			<-end
		})
	}
	started.Wait()
	close(end)
	ended.Wait()
}

// maxStack ends a recursion without an end before it takes all memory, so that the reason can be told.
const maxStack = 64 << 20

// maxFiles is more than the dump, the answer, the runtime and confine have open.
const maxFiles = 32

// limit sets the limits that the kernel and the Go runtime enforce.
func limit(l Limits) error {
	debug.SetMaxStack(maxStack)
	debug.SetMemoryLimit(int64(l.Memory / 2)) // collect garbage before the kernel refuses more memory
	cpu := uint64(l.CPU.Seconds())
	for resource, most := range map[int]uint64{
		unix.RLIMIT_CORE: 0,
		// With a soft limit below, the Go runtime would ignore the SIGXCPU. At this limit the kernel sends SIGKILL.
		unix.RLIMIT_CPU: cpu,
		// RLIMIT_AS counts what the Go runtime reserves, a gigabyte. RLIMIT_DATA counts private memory that can be written; seccomp
		// forbids the other kinds.
		unix.RLIMIT_DATA:   l.Memory,
		unix.RLIMIT_NOFILE: maxFiles,
	} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("setrlimit(%d, %d): %w", resource, most, err)
		}
	}
	return nil
}

// dropCapabilities takes all capabilities from all threads. A receiver that root runs has all of them, a service none. User root
// still owns its files.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0)
	if errno != 0 {
		return fmt.Errorf("capset: %w", errno)
	}
	return nil
}

// confineFiles lets the process read files below the working directory, or nothing.
func confineFiles(files bool) error {
	var rules []landlock.Rule
	if files {
		rules = append(rules, landlock.PathAccess(llsys.AccessFSReadFile|llsys.AccessFSReadDir, "."))
	}
	return landlock.V11.BestEffort().Restrict(rules...)
}
