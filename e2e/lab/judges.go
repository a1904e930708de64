package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// A judge is a program of another suite or architecture. The loader of that suite runs it.
type judge struct {
	program string
	suite   string
	arch    string
}

// The judges. Those of bookworm are too old for the kernels of the lab.
var (
	crash8 = judge{"crash", "trixie", "amd64"}
	// On 6.12, makedumpfile 1.7.6 takes free and offline pages for slab pages, because
	// page types are numbers there and no longer bits, and excludes none of them (tried on
	// 6.12.117). 1.7.8 is right there, and equal to 1.7.6 on older kernels.
	makedumpfile176      = judge{"makedumpfile", "trixie", "amd64"}
	makedumpfileNew      = judge{"makedumpfile", "forky", "amd64"}
	makedumpfile176arm64 = judge{"makedumpfile", "trixie", "arm64"}
	// No judge: it writes what lies on the disks of Debian 12 (1.7.2).
	makedumpfile172 = judge{"makedumpfile", "bookworm", "amd64"}
)

// libArch is the architecture in names of library directories and loaders.
var libArch = map[string]struct{ dir, loader, emulator string }{
	"amd64": {"x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2", ""},
	"arm64": {"aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1", "qemu-aarch64"},
}

// argv fetches the judge if needed and returns the command line that runs it with args.
func (j judge) argv(ctx context.Context, args ...string) ([]string, error) {
	dir, err := cached(ctx, "judges", j.program+"-"+j.suite+"-"+j.arch, func(dir string) error {
		apt, err := newApt(ctx, j.suite, j.arch)
		if err != nil {
			return err
		}
		libs, err := apt.libraries(ctx, j.program)
		if err != nil {
			return err
		}
		return apt.fetch(ctx, dir, append(libs, j.program)...)
	})
	if err != nil {
		return nil, err
	}
	usr := filepath.Join(dir, "usr")
	a := libArch[j.arch]
	loader := filepath.Join(usr, a.loader)
	if _, err := os.Stat(loader); err != nil {
		loader = filepath.Join(dir, a.loader) // packages up to bookworm have files in /lib
	}
	argv := []string{
		loader, "--library-path", filepath.Join(usr, "lib", a.dir) + ":" + filepath.Join(dir, "lib", a.dir),
		filepath.Join(usr, "bin", j.program),
	}
	if a.emulator != "" {
		argv = append([]string{a.emulator}, argv...)
	}
	return append(argv, args...), nil
}

// run returns the judge's standard output and error, also if it failed.
func (j judge) run(ctx context.Context, stdin string, args ...string) (string, error) {
	argv, err := j.argv(ctx, args...)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := RunKeepingThread(cmd); err != nil {
		return out.String(), fmt.Errorf("lab: %s %s: %w: %s", j.program, strings.Join(args, " "), err, tail(out.String(), 10))
	}
	return out.String(), nil
}

// RunKeepingThread is cmd.Run on a thread that no other goroutine ends before the command ends. crash needs it: it asks the kernel for
// SIGUSR2 when the thread that started it ends, and then exits with 1 and no word (crash 8.0.6, setup_environment in main.c, restart in
// cmdline.c). Ganesha.Within ends threads.
func RunKeepingThread(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// Crash opens a dump in crash 8.0.6 and returns the output of commands, without the
// banner. An error means that crash did not open the dump or died during the commands. A
// command that fails only shows in the output.
func Crash(ctx context.Context, vmlinux, dump string, commands ...string) (string, error) {
	script := strings.Join(append(commands, "quit"), "\n") + "\n"
	return crash8.run(ctx, script, "-s", "--no_scroll", "--no_crashrc", vmlinux, dump)
}

// CrashCommand returns the command line that runs crash 8.0.6.
func CrashCommand(ctx context.Context, args ...string) ([]string, error) {
	return crash8.argv(ctx, args...)
}

// crashMark separates the outputs of CrashEach. No command prints it.
const crashMark = "corehaul-lab-next-command"

// CrashEach is Crash with the output of each command by itself.
func CrashEach(ctx context.Context, vmlinux, dump string, commands ...string) (map[string]string, error) {
	var script []string
	for _, c := range commands {
		script = append(script, "!echo "+crashMark, c)
	}
	out, err := Crash(ctx, vmlinux, dump, script...)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(out, crashMark+"\n")
	if len(parts) != len(commands)+1 {
		return nil, fmt.Errorf("lab: crash answered %d of %d commands: %s", len(parts)-1, len(commands), tail(out, 10))
	}
	answers := map[string]string{}
	for i, c := range commands {
		answers[c] = parts[i+1]
	}
	return answers, nil
}

// CrashStructures are the structures whose members Captured.Crash lists.
var CrashStructures = []string{"task_struct", "module", "mm_struct", "signal_struct", "rq", "thread_struct", "page", "pt_regs", "file", "net_device"}

// All that tests ask crash of a panic, and of a machine's own file. They are asked at once, because opening a dump takes longer than
// all answers.
var (
	panicCommands   = []string{"sys", "bt", "bt -a", "foreach bt", "ps", "mod", "log"}
	captureCommands = slices.Concat(panicCommands, []string{"kmem -i"}, structCommands())
)

func structCommands() []string {
	var list []string
	for _, name := range CrashStructures {
		list = append(list, CrashStructure(name))
	}
	return list
}

// CrashStructure is the command that lists the members of a structure.
func CrashStructure(name string) string { return "struct -o " + name }

// Crash returns what crash says of the machine's ELF file, by its commands: sys, bt, bt -a, foreach bt, ps, mod, log, kmem -i, and
// CrashStructure of each of CrashStructures. It caches the answers.
func (c *Captured) Crash(ctx context.Context) (map[string]string, error) {
	return cachedCrash(ctx, c.Scenario.Kernel, c.Dir, c.ELF, captureCommands)
}

// CrashOpens reports whether the lab asks crash about the dump. No released crash opens those of 7.3 (9.0.2 was tried). What crash
// says of those of 6.1-rt is not worth 860 MB of debugging information.
func (c *PanicCapture) CrashOpens() bool {
	return c.Scenario.Kernel != "7.3" && c.Scenario.Kernel != "6.1-rt"
}

// Crash returns what crash says of the dump, by its commands: sys, bt, bt -a, foreach bt, ps, mod and log. It caches the answers.
func (c *PanicCapture) Crash(ctx context.Context) (map[string]string, error) {
	return cachedCrash(ctx, c.Scenario.Kernel, c.Dir, c.Dump, panicCommands)
}

// cachedCrash is CrashEach with its output in the cache, for a dump of a kernel in dir, for each version of crash.
func cachedCrash(ctx context.Context, kernel, dir, dump string, commands []string) (map[string]string, error) {
	k, err := GetKernel(ctx, kernel)
	if err != nil {
		return nil, err
	}
	vmlinux, err := k.Vmlinux(ctx)
	if err != nil {
		return nil, err
	}
	argv, err := crash8.argv(ctx)
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(argv[len(argv)-1])
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(append(program, "\x00"+vmlinux+"\x00"+strings.Join(commands, "\x00")...))
	const file = "answers.json"
	answered, err := cached(ctx, "crash", fmt.Sprintf("%s-%x", filepath.Base(dir), hash[:6]), func(dir string) error {
		answers, err := CrashEach(ctx, vmlinux, dump, commands...)
		if err != nil {
			return err
		}
		b, err := json.Marshal(answers)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, file), b, 0o600)
	})
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(answered, file))
	if err != nil {
		return nil, err
	}
	var answers map[string]string
	return answers, json.Unmarshal(b, &answers)
}

// Makedumpfile runs makedumpfile 1.7.6 for x86_64 and returns its output, also if it
// failed. The error then matches *exec.ExitError. There is no progress in the output
// unless the arguments set a message level.
func Makedumpfile(ctx context.Context, args ...string) (string, error) {
	return makedumpfile176.makedumpfile(ctx, args)
}

// Makedumpfile172Command returns the command line that runs the makedumpfile of Debian 12.
func Makedumpfile172Command(ctx context.Context, args ...string) ([]string, error) {
	return makedumpfile172.argv(ctx, append([]string{"--message-level", "4"}, args...)...)
}

// Makedumpfile runs a makedumpfile that is right about this kernel: 1.7.6, for arm64 under
// qemu-user, or that of Debian forky for 6.12 (1.7.8 when this was tried). None of them
// reads 6.12 on arm64.
func (k *Kernel) Makedumpfile(ctx context.Context, args ...string) (string, error) {
	return k.makedumpfile().makedumpfile(ctx, args)
}

// MakedumpfileCommand returns the command line that runs the same makedumpfile.
func (k *Kernel) MakedumpfileCommand(ctx context.Context, args ...string) ([]string, error) {
	return k.makedumpfile().argv(ctx, args...)
}

func (k *Kernel) makedumpfile() judge {
	switch {
	case k.Arch == "arm64":
		return makedumpfile176arm64
	case strings.HasPrefix(k.Release, "6.12."):
		return makedumpfileNew
	}
	return makedumpfile176
}

func (j judge) makedumpfile(ctx context.Context, args []string) (string, error) {
	const levelFlag = "--message-level"
	if !slices.Contains(args, levelFlag) {
		const commonAndErrors = "6"
		args = append([]string{levelFlag, commonAndErrors}, args...)
	}
	return j.run(ctx, "", args...)
}

//go:embed readall.py
var readAllScript string

// Pages are the pages that libkdumpfile read of a dump.
type Pages struct {
	// Count is the number of pages.
	Count int `json:"count"`
	// SHA256 is over all of them in the order of their frame numbers, each
	// preceded by the frame number as a little-endian u64.
	SHA256 string `json:"sha256"`
}

// ReadAllPages reads every page of a dump with libkdumpfile 0.5.1, which drgn uses for
// kdump files: ELF or kdump-compressed, not flattened.
func ReadAllPages(ctx context.Context, dump string) (*Pages, error) {
	// Only Debian's own Python has the binding, and $PATH may name another one first.
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", "-", dump)
	cmd.Stdin = strings.NewReader(readAllScript)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("lab: libkdumpfile on %s: %w: %s", dump, err, tail(stderr.String(), 5))
	}
	var p Pages
	if err := json.Unmarshal(out, &p); err != nil {
		return nil, fmt.Errorf("lab: libkdumpfile said %q: %w", out, err)
	}
	if p.Count == 0 {
		return nil, errors.New("lab: libkdumpfile saw no page")
	}
	return &p, nil
}
