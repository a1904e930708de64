package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// awaitOrder waits until the host has written an order to its disk, and returns it and the disk. The host may stop the machine
// meanwhile, and go on with it many times.
func awaitOrder() ([]byte, *os.File, error) {
	dev, err := diskBySerial(guestcfg.DiskOrder)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(dev, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, nil, err
	}
	block, err := alignedBuffer(guestcfg.OrderLen)
	for try := 0; err == nil && block[0] == 0; try++ {
		// The console of 7.3 sometimes keeps a line until the next one (seen in an otherwise idle guest).
		if try%50 == 0 {
			say(guestcfg.AwaitsOrder)
		}
		time.Sleep(20 * time.Millisecond)
		_, err = f.ReadAt(block, 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return bytes.TrimRight(block, "\x00"), f, nil
}

// awaitWay waits for an order that says how to crash.
func awaitWay() (string, error) {
	order, disk, err := awaitOrder()
	if err != nil {
		return "", err
	}
	return string(order), disk.Close()
}

// awaitImage waits for an order with the initramfs of the capture kernel, and puts what it says into cfg.
func awaitImage(cfg *guestcfg.Config) error {
	b, disk, err := awaitOrder()
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }()
	var order guestcfg.Order
	if err := json.Unmarshal(b, &order); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	cfg.CaptureAppend, cfg.Time = order.CaptureAppend, order.Time
	initrd, err := os.Create(guestcfg.InitrdPath)
	if err != nil {
		return err
	}
	buf, err := alignedBuffer(copyBlock)
	if err != nil {
		return err
	}
	for off := int64(0); off < order.InitrdLen; off += copyBlock {
		if _, err := disk.ReadAt(buf, guestcfg.OrderLen+off); err != nil {
			return fmt.Errorf("order: %w", err)
		}
		if _, err := initrd.Write(buf[:min(copyBlock, order.InitrdLen-off)]); err != nil {
			return err
		}
	}
	return initrd.Close()
}

// crasher is the first argument, and the name, of the process that crashes the kernel.
const crasher = "crasher"

// crashmodFile takes the names of the kinds that the module crashmod knows.
const crashmodFile = "/proc/crashmod"

// A way is how to bring the kernel down from a process that is not PID 1, whose faults have rules of their own.
type way struct {
	settings map[string]string // contents of files
	kind     string            // of crashmod; empty: that of the same name
	run      func() error      // if not nil, instead of crashmod
}

// ways are those that need more than crashmod and panic_on_oops.
var ways = map[string]way{
	"warn":     {settings: map[string]string{"/proc/sys/kernel/panic_on_warn": "1"}},
	"refcount": {settings: map[string]string{"/proc/sys/kernel/panic_on_warn": "1"}},
	"soft-lockup": {kind: "spin", settings: map[string]string{
		"/proc/sys/kernel/watchdog_thresh":  "1",
		"/proc/sys/kernel/softlockup_panic": "1",
	}},
	"rcu-stall": {kind: "spin", settings: map[string]string{
		"/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout": "3",
		"/proc/sys/kernel/panic_on_rcu_stall":                   "1",
	}},
	"hung-task": {settings: map[string]string{
		"/proc/sys/kernel/hung_task_timeout_secs": "1",
		"/proc/sys/kernel/hung_task_panic":        "1",
	}},
	"nmi":        {kind: "spin", settings: map[string]string{"/proc/sys/kernel/unknown_nmi_panic": "1"}},
	"bpf":        {run: sendFiltered},
	"traced":     {run: traceReturns},
	"livepatch":  {run: callPatched},
	"page-cache": {run: readBroken},
	"oom":        {run: eatMemory, settings: map[string]string{"/proc/sys/vm/panic_on_oom": "1"}},
}

// bringDownByChild starts the process that brings the kernel down. It returns only if that fails.
func bringDownByChild(how string, cpu int) error {
	if err := os.WriteFile("/proc/sys/kernel/panic_on_oops", []byte("1"), 0); err != nil {
		return err
	}
	for file, value := range ways[how].settings {
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			return err
		}
	}
	out, err := exec.Command("/proc/self/exe", crasher, how, strconv.Itoa(cpu)).CombinedOutput() //nolint:noctx // PID 1 has nobody to cancel it
	return fmt.Errorf("no panic by %q: %w: %s", how, err, out)
}

// crashFromChild runs in that process. All happens in one thread, on one CPU. CPU 0 gets the NMIs from outside.
func crashFromChild(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want HOW CPU, got %q", args)
	}
	cpu, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	var one unix.CPUSet
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/self/task/"+strconv.Itoa(unix.Gettid())+"/comm", []byte(crasher), 0); err != nil {
		return err
	}
	w := ways[args[0]]
	if w.run != nil {
		return w.run()
	}
	kind := w.kind
	if kind == "" {
		kind = args[0]
	}
	return crashmodKind(kind)
}

// crashmodKind has the module do what a kind is.
func crashmodKind(kind string) error { return os.WriteFile(crashmodFile, []byte(kind), 0) }

// eatMemory takes more memory than there is.
func eatMemory() error {
	for {
		b, err := anon(hugePage, 0)
		if err != nil {
			return errors.Join(errors.New("no more memory, and no panic"), err)
		}
		fillText(b, 1)
	}
}
