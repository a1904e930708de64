package cage

import (
	"fmt"
	"os"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// allowed are the system calls that reading a dump needs: those of the Go runtime, of package os, and of dumpdir. Calls that change
// anything but memory and open files are not among them. The names are those of package arch: newfstatat(2) has two of them.
var allowed = []string{
	// files that are open, or are opened to read (see conditional)
	"read", "pread64", "write", "pwrite64", "lseek", "close", "fstat", "newfstatat", "fstatat", "getdents64", "fadvise64", "ftruncate",
	// memory (see conditional)
	"munmap", "madvise",
	// time, and threads that run already (see startThreads)
	"futex", "sched_yield", "sched_getaffinity", "gettid", "getpid", "nanosleep", "clock_gettime", "exit", "exit_group",
	// signals
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
	// the poller of the Go runtime
	"epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "pipe2",
	"getrandom",
}

// hostile are the system calls that end the process: no code of this program ever does them, so somebody else's is running. All other
// calls fail with EPERM.
var hostile = []string{
	"socket", "socketpair", "connect", "bind", "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_open", "mount",
	"unshare", "setns", "bpf", "keyctl", "add_key", "request_key", "io_uring_setup", "userfaultfd", "perf_event_open", "init_module", "finit_module",
	"kexec_load", "memfd_create",
}

// conditional are the calls that depend on their arguments.
func conditional(self int) []seccomp.NameWithConditions {
	not := func(call string, argument uint32, bits uint64) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: call, Conditions: []seccomp.Condition{{Argument: argument, Operation: seccomp.BitsNotSet, Value: bits}}}
	}
	mmap := not("mmap", 2, unix.PROT_EXEC)
	mmap.Conditions = append(mmap.Conditions, seccomp.Condition{Argument: 3, Operation: seccomp.BitsNotSet, Value: unix.MAP_SHARED})
	return []seccomp.NameWithConditions{
		not("openat", 2, unix.O_WRONLY|unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC|unix.O_TMPFILE&^unix.O_DIRECTORY),
		mmap,
		not("mprotect", 2, unix.PROT_EXEC),
		// Other commands could make a file send signals to other processes (F_SETOWN, F_SETSIG).
		{Name: "fcntl", Conditions: []seccomp.Condition{{Argument: 1, Operation: seccomp.Equal, Value: unix.F_GETFL}}},
		{Name: "tgkill", Conditions: []seccomp.Condition{{Argument: 0, Operation: seccomp.Equal, Value: uint64(self)}}},
	}
}

// confineCalls leaves this process, with all of its threads, the system calls above. Calls of other architectures fail.
func confineCalls() error {
	known, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	here := func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, ok := known.SyscallNames[name]; return !ok })
	}
	err = seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true, Flag: seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionErrno,
			Syscalls: []seccomp.SyscallGroup{
				{Action: seccomp.ActionAllow, Names: here(allowed), NamesWithCondtions: conditional(os.Getpid())},
				{Action: seccomp.ActionKillProcess, Names: here(hostile)},
			},
		},
	})
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	return nil
}
