package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/debuginfo/symbolfile"
	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/triage"
)

// symbolsRun runs corehaul with more environment and input, and returns both outputs and the exit code.
func symbolsRun(t *testing.T, stdin string, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errOut strings.Builder
	cmd := exec.CommandContext(t.Context(), judgesBin+"corehaul", args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), strings.NewReader(stdin), &out, &errOut
	if err := lab.RunKeepingThread(cmd); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// TestSymbols has a debuginfod serve the vmlinux of a crashed kernel. bt does without it while the disk of the cache is full. Then bt has the lines
// that addr2line has. With the server gone, crash and drgn start with the file that was downloaded once.
func TestSymbols(t *testing.T) {
	t.Parallel()
	c, err := lab.Panic(t.Context(), lab.Scenario{Kernel: "6.1", Crash: "null-read"})
	if err != nil {
		t.Fatal(err)
	}
	k, err := lab.GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	vmlinux, err := k.Vmlinux(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	info := openDump(t, c).Image.Info().VMCOREINFO
	buildID, _ := info.String("BUILD-ID")
	kaslr, _ := info.Hex("KERNELOFFSET")
	server, err := lab.StartDebuginfod(t.Context(), t.TempDir(), vmlinux, buildID)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	proxy := symbolsNewProxy(t, server.URL)
	size, err := os.Stat(vmlinux)
	if err != nil {
		t.Fatal(err)
	}
	out, stderr, code := symbolsRun(t, "", symbolsEnv(proxy, fulldiskMount(t, 1<<20)), "bt", c.Dump)
	if code != 0 || strings.Contains(out, ".c: ") || !strings.Contains(stderr, "no space left on device") {
		t.Errorf("full disk: exit code %d, stderr %q", code, stderr)
	}
	cache := symbolsDiskFills(t, proxy, c.Dump, size.Size())
	out = symbolsTwoAtOnce(t, proxy, cache, c.Dump)
	var traces []triage.Backtrace
	if err := json.Unmarshal([]byte(out), &traces); err != nil || len(traces) != 1 {
		t.Fatalf("%v in %s", err, out)
	}
	symbolsLikeAddr2line(t, vmlinux, kaslr, traces[0].Frames)

	server.Stop()
	symbolsOfReport(t, symbolsEnv(proxy, cache), c.Dump, traces[0].Frames)
	downloaded := filepath.Join(cache, "corehaul", "debuginfo", buildID+".debug")
	env := append(symbolsEnv(proxy, cache), "PATH="+symbolsCrash(t)+":"+os.Getenv("PATH"))
	out, stderr, code = symbolsRun(t, "sys\nquit\n", env, "crash", c.Dump, "--", "-s", "--no_scroll", "--no_crashrc")
	if code != 0 || !strings.Contains(out, "KERNEL: "+downloaded) || !strings.Contains(out, "DUMPFILE: "+c.Dump) {
		t.Errorf("crash: exit code %d\n%s%s", code, out, stderr)
	}
	script := filepath.Join(t.TempDir(), "release.py")
	if err := os.WriteFile(script, []byte(`print(prog["init_uts_ns"].name.release.string_().decode())`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, stderr, code = symbolsRun(t, "", env, "drgn", c.Dump, "--", "-q", script); code != 0 || out != k.Release+"\n" {
		t.Errorf("drgn: exit code %d, %q\n%s", code, out, stderr)
	}
	out, stderr, code = symbolsRun(t, "", []string{"DEBUGINFOD_URLS=", "XDG_CACHE_HOME=" + t.TempDir(), env[len(env)-1]}, "crash", c.Dump)
	if code != 1 || !strings.Contains(stderr, "linux-image-"+k.Release+"-dbg") {
		t.Errorf("without vmlinux: exit code %d\n%s%s", code, out, stderr)
	}
}

// symbolsOfReport wants the lines that bt has in the report, if they are asked for.
func symbolsOfReport(t *testing.T, env []string, dump string, want []triage.Frame) {
	t.Helper()
	for _, symbols := range []string{"off", "auto"} {
		out, stderr, code := symbolsRun(t, "", env, "report", "--json", "--symbols", symbols, dump)
		var r triage.Report
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || r.Crashed() == nil {
			t.Fatalf("report --symbols %s: exit code %d, %v, %q", symbols, code, err, stderr)
		}
		if got := r.Crashed().Frames; symbols == "auto" && !reflect.DeepEqual(got, want) || symbols == "off" && strings.Contains(out, `"file"`) {
			t.Errorf("--symbols %s: the report has\n%+v\nbt has\n%+v", symbols, got, want)
		}
	}
	if out, _, _ := symbolsRun(t, "", append(env, "COREHAUL_SYMBOLS=auto"), "report", dump); !regexp.MustCompile(`(?m)^  vfs_write\+0x[0-9a-f]+\n    .*fs/read_write\.c: [0-9]+$`).MatchString(out) {
		t.Errorf("no lines in\n%s", out)
	}
}

// symbolsCrash returns a directory with crash 8.0.6.
func symbolsCrash(t *testing.T) string {
	t.Helper()
	argv, err := lab.CrashCommand(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "crash"), []byte("#!/bin/sh\nexec "+strings.Join(argv, " ")+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// symbolsLikeAddr2line compares the lines of the kernel's frames.
func symbolsLikeAddr2line(t *testing.T, vmlinux string, kaslr uint64, frames []triage.Frame) {
	t.Helper()
	lines := 0
	for _, f := range frames {
		if f.Module != "" || f.User {
			continue
		}
		at, err := strconv.ParseUint(f.Address, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if f.Found != unwind.FromRegisters {
			at--
		}
		var got []symbolfile.Line
		for _, in := range f.Inlined {
			got = append(got, symbolfile.Line(in))
		}
		got = append(got, symbolfile.Line{Function: f.Function, File: f.File, Line: f.Line})
		symbolsSame(t, got, symbolsAddr2line(t, vmlinux, at-kaslr))
		lines += len(got)
	}
	if lines < 5 {
		t.Errorf("only %d lines", lines)
	}
}

// symbolsAddr2line returns what addr2line says of an address.
func symbolsAddr2line(t *testing.T, file string, at uint64, flags ...string) (list []symbolfile.Line) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "addr2line", append(flags, "-i", "-f", "-e", file, fmt.Sprintf("%#x", at))...).Output()
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Split(string(bytes.TrimSpace(out)), "\n")
	for i := 0; i+1 < len(said); i += 2 {
		place, _, _ := strings.Cut(said[i+1], " (discriminator")
		path, number, _ := strings.Cut(place, ":")
		n, _ := strconv.Atoi(number) // "?" is 0
		list = append(list, symbolfile.Line{Function: said[i], File: path, Line: n})
	}
	return list
}

// symbolsSame compares lines. addr2line puts the directory of the build before paths, and the function may have a suffix in one of the
// two.
func symbolsSame(t *testing.T, got, want []symbolfile.Line) {
	t.Helper()
	same := len(got) == len(want)
	for i := 0; same && i < len(got); i++ {
		function, _, _ := strings.Cut(got[i].Function, ".")
		same = got[i].Line == want[i].Line && strings.HasSuffix(want[i].File, strings.TrimLeft(got[i].File, "./")) &&
			(function == strings.Split(want[i].Function, ".")[0] || want[i].Function == "??")
	}
	if !same {
		t.Errorf("got %v, addr2line says %v", got, want)
	}
}

// TestSymbolsOfModule compares lines of a module in memory with what addr2line says of the module's file.
func TestSymbolsOfModule(t *testing.T) {
	t.Parallel()
	c, err := lab.CaptureELF(t.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", Kexec: "c"})
	if err != nil {
		t.Fatal(err)
	}
	k, err := lab.GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	_, path, err := k.DebugModule(t.Context(), "drivers/block/virtio_blk.ko")
	if err != nil {
		t.Fatal(err)
	}
	list := modulesLoad(t, openDump(t, c))
	for _, m := range list.All() {
		if m.Name != "virtio_blk" {
			continue
		}
		symbols, err := list.Symbols(m)
		if err != nil {
			t.Fatal(err)
		}
		at, base := map[string]uint64{}, uint64(m.Base())
		for _, s := range symbols {
			at[s.Name] = uint64(s.Addr)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		if err := symbolfile.Check(file, symbolsSize(t, file), m.BuildID); err != nil {
			t.Error(err)
		}
		f, err := symbolfile.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if err := f.Place(func(name string) (uint64, bool) { return at[name], at[name] != 0 }); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"virtblk_probe", "virtio_queue_rq", "virtblk_done"} {
			for _, offset := range []uint64{5, 0x31, 0x60} {
				got, err := f.Lines(at[name] + offset)
				if err != nil {
					t.Fatalf("%s+%#x: %v", name, offset, err)
				}
				symbolsSame(t, got, symbolsAddr2line(t, path, at[name]+offset-base, "-j", ".text"))
			}
		}
		return
	}
	t.Error("the dump has no virtio_blk")
}

func symbolsSize(t *testing.T, f *os.File) int64 {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
