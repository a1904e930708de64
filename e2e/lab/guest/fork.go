package main

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forkWriter forks without exec. The child writes one byte in every fourth page of b, so
// that some pages are shared and some are copied, and then sleeps for ever. It has one
// thread of a Go process and no runtime, so it makes raw system calls only, and its
// functions must not grow the stack.
func forkWriter(b []byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := blockSignals(); err != nil {
		return err
	}
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		forkedChild(b)
	}
	return nil
}

// blockSignals keeps the child from running the runtime's signal handlers. They stay
// blocked in the parent's thread, which only sleeps from then on.
func blockSignals() error {
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	return unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil)
}

//go:nosplit
//go:norace
func forkedChild(b []byte) {
	for i := 0; i < len(b); i += 4 * pageLen {
		b[i] = 'C'
	}
	forever := unix.Timespec{Sec: 1 << 30}
	for {
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&forever)), 0, 0)
	}
}
