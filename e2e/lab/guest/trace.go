package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendFiltered has a BPF program call a function in which the module crashes. The program filters what a socket receives, so it
// runs as this process sends.
func sendFiltered() error {
	if err := crashmodKind("bpf"); err != nil {
		return err
	}
	filter, err := loadFilter()
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	if err := unix.SetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_ATTACH_BPF, filter); err != nil {
		return fmt.Errorf("attach the BPF program: %w", err)
	}
	if _, err := unix.Write(pair[0], []byte("x")); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return errors.New("the BPF program ran, and no panic")
}

// loadFilter loads the BPF program lab_filter: r0 = bpf_get_prandom_u32(); r0 = -1; exit. Instructions are struct bpf_insn, the
// arguments those of BPF_PROG_LOAD in union bpf_attr (include/uapi/linux/bpf.h).
func loadFilter() (fd int, err error) {
	const call, move, exit, getPrandomU32 = 0x85, 0xb7, 0x95, 7
	program := []uint64{call | getPrandomU32<<32, move | 0xffffffff<<32, exit}
	license := []byte("GPL\x00")
	attr := struct {
		kind, count       uint32
		program, license  uintptr
		logLevel, logSize uint32
		log               uint64
		version, flags    uint32
		name              [16]byte
	}{
		kind: unix.BPF_PROG_TYPE_SOCKET_FILTER, count: uint32(len(program)),
		program: uintptr(unsafe.Pointer(&program[0])), license: uintptr(unsafe.Pointer(&license[0])),
	}
	copy(attr.name[:], "lab_filter")
	r, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(program)
	runtime.KeepAlive(license)
	if errno != 0 {
		return 0, fmt.Errorf("load the BPF program: %w", errno)
	}
	return int(r), nil
}

// traceReturns has the function graph tracer follow the returns of one function of the module, which then crashes in it.
func traceReturns() error {
	const tracing = "/sys/kernel/tracing"
	if err := unix.Mount("tracefs", tracing, "tracefs", 0, ""); err != nil {
		return fmt.Errorf("mount tracefs: %w", err)
	}
	for _, set := range [][2]string{{"set_ftrace_filter", "traced_outer"}, {"current_tracer", "function_graph"}} {
		if err := os.WriteFile(tracing+"/"+set[0], []byte(set[1]), 0); err != nil {
			return err
		}
	}
	return crashmodKind("traced")
}
