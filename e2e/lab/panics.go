package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// panicsVersion is part of the name of every capture of Panic. Increase it when a change of the lab, of the module that crashes
// or of the guest program changes what is captured of any kind.
const panicsVersion = 1

// A PanicCapture is what is kept of a panic. All fields are paths in the cache. Nobody may write to these files.
type PanicCapture struct {
	Scenario Scenario
	Dir      string // the directory of the files below
	Dump     string // kdump-compressed at dump level 31, complete
	Log      string // the kernel's log out of the dump, as lines of [seconds] text
	Console  string // output of both kernels, from some milliseconds before the panic
	// Records of the system kernel from before the panic, with the module that crashes already loaded:
	Kallsyms string // /proc/kallsyms, compressed by gzip
	Modules  string // /proc/modules
	Tasks    string // as in Captured
}

// allPanics lists the kinds of panics on the kernel with most of them, in the order of the capture.
var allPanics = []string{
	"sysrq", "init-exit", "null-read", "null-write", "null-call", "wild-pointer", "readonly-write", "nx-call", "divide-error",
	"invalid-opcode", "bug", "warn", "refcount", "panic", "gp-fault", "list-corruption", "usercopy", "stack-overflow", "stack-smash", "fortify",
	"soft-lockup", "rcu-stall", "hung-task", "oom", "nmi", "hardirq", "ipi", "softirq", "workqueue", "kthread",
	"bpf", "traced", "livepatch", "page-cache",
}

// somePanics are those that the other kernels have too. Each takes 12 s of CPU time, and crash takes 10 s more.
var somePanics = []string{
	"null-read", "null-call", "bug", "warn", "gp-fault", "stack-overflow", "softirq", "workqueue",
}

// newestPanics are those that the newest kernel has besides: what follows them in stacks keeps changing.
var newestPanics = []string{"bpf", "traced"}

// Panics lists the panics of the lab: every kind on one kernel, and those whose reports or backtraces differ between kernels on
// the others.
func Panics() []Scenario {
	var all []Scenario
	for _, kernel := range []string{"6.1", "5.10", "6.12", "7.3"} {
		kinds := somePanics
		switch kernel {
		case "6.1":
			kinds = allPanics
		case "7.3":
			kinds = slices.Concat(somePanics, newestPanics)
		}
		for _, kind := range kinds {
			all = append(all, Scenario{Kernel: kernel, Crash: kind})
		}
	}
	return all
}

// Rebuilds lists panics that are also among Panics, on another build of 6.1, another host and another CPU.
func Rebuilds() []Scenario {
	var all []Scenario
	for _, kind := range []string{"null-read", "bug"} {
		all = append(all, Scenario{Kernel: "6.1-rt", Nodename: "lab-neighbour", CrashCPU: 1, Crash: kind})
	}
	return all
}

// panicDefaults sets the defaults of Panic. The memory is small, because nothing needs more.
func (s Scenario) panicDefaults() Scenario {
	setDefault(&s.MemMiB, 512)
	return s.withDefaults()
}

// panicHash covers everything that decides what a capture of Panic contains.
func (s Scenario) panicHash(release string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	h := sha256.Sum256(fmt.Appendf(nil, "panics %d kernel %s scenario %s", panicsVersion, release, b))
	return hex.EncodeToString(h[:])[:12]
}

// Panic makes a kernel panic in the way that s.Crash names, and returns the capture, or the one in the cache. All panics of
// machines that are otherwise equal begin in the same saved state, so they have the same addresses.
func Panic(ctx context.Context, s Scenario) (*PanicCapture, error) {
	s = s.panicDefaults()
	k, err := GetKernel(ctx, s.Kernel)
	if err != nil {
		return nil, err
	}
	dir, err := cached(ctx, "panics", s.Name()+"-"+s.panicHash(k.Release), func(dir string) error {
		return stubbornly(ctx, dir, func() error { return capturePanic(ctx, s, k, dir) })
	})
	if err != nil {
		return nil, err
	}
	in := func(file string) string { return filepath.Join(dir, file) }
	return &PanicCapture{
		Scenario: s, Dir: dir, Dump: in("vmcore"), Log: in("log"), Console: in("console.log"),
		Kallsyms: in("kallsyms.gz"), Modules: in("modules"), Tasks: in("tasks"),
	}, nil
}

// capturePanic continues the saved state until its panic has been captured.
func capturePanic(ctx context.Context, s Scenario, k *Kernel, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, captureTimeout)
	defer cancel()
	state, err := savedState(ctx, s, k)
	if err != nil {
		return err
	}
	work, err := tempDir("panic")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	m, err := state.machine(s, k, work)
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.diskPath(guestcfg.DiskOrder), orderBlock(s.Crash), 0o600); err != nil {
		return err
	}
	words := map[string]string{}
	m.onLine = func(line string) {
		noteGuestWord(words, line)
		if s.Crash == "nmi" && strings.Contains(line, guestcfg.Spins) {
			m.asideErr = errors.Join(m.asideErr, m.qmp("inject-nmi", map[string]any{}))
		}
	}
	runErr := m.run(ctx)
	if err := os.Rename(m.consolePath(), filepath.Join(dir, "console.log")); err != nil {
		return errors.Join(runErr, err)
	}
	if runErr != nil {
		return runErr
	}
	vmcore := m.diskPath(guestcfg.DiskVmcore)
	if err := cutVmcore(words, vmcore); err != nil {
		return guestError(err, filepath.Join(dir, "console.log"))
	}
	if err := state.linkRecords(dir); err != nil {
		return err
	}
	log := filepath.Join(dir, "log")
	if err := keepKernel(ctx, vmcore, filepath.Join(dir, "vmcore"), log); err != nil {
		return err
	}
	return checkStall(s, log, filepath.Join(dir, "console.log"))
}

// checkStall wants a stall of RCU to be noticed by the CPU that stalls, so that its task is the one that panics. On a busy host
// the other one may be faster (seen once).
func checkStall(s Scenario, log, console string) error {
	if s.Crash != "rcu-stall" {
		return nil
	}
	text, err := os.ReadFile(log)
	if err == nil && !bytes.Contains(text, []byte("self-detected stall")) {
		err = guestError(errors.New("another CPU noticed the stall"), console)
	}
	return err
}

// orderBlock is the first block of the disk on which the guest looks for the kind of panic.
func orderBlock(kind string) []byte {
	return append([]byte(kind), make([]byte, guestcfg.OrderLen-len(kind))...)
}
