package cage

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/internal/race"
)

func newCage(limits Limits) *Cage {
	if race.Enabled {
		limits.Memory = 1 << 46 // the race detector has mapped as much, for what it knows of each byte
	}
	return New(Self, limits, slog.New(slog.DiscardHandler))
}

// What the child may not do fails, and the child goes on.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, of := range []string{"read files", "write files", "signals", "limits", "all threads"} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			dir := attackedDir(t)
			s, a, err := newCage(Limits{}).run(t.Context(), of, dir)
			if err != nil || a.Failed != "all refused" {
				t.Errorf("got %q, error %v", a.Failed, err)
			}
			if len(s.Missing) > 0 {
				t.Errorf("this kernel lacks %v", s.Missing)
			}
			if b, err := os.ReadFile(filepath.Join(dir, "here")); err != nil || string(b) != "here" {
				t.Errorf("the file is %q, error %v", b, err)
			}
		})
	}
}

// What happens to the machine, or to the whole service, does not end the child.
func TestGoesOn(t *testing.T) {
	t.Parallel()
	for _, of := range []string{"blocked reads", "signals of systemd"} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			if _, a, err := newCage(Limits{}).run(t.Context(), of, t.TempDir()); err != nil || a.Failed != "goes on" {
				t.Errorf("got %q, error %v", a.Failed, err)
			}
		})
	}
}

// Children leave no files open and no goroutines behind, however they end.
func TestNothingIsLeft(t *testing.T) {
	open := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	before, dir := 0, t.TempDir()
	for i := range 5 {
		for _, of := range []string{ofNothing, "panic", "exec", noCage} {
			_, _, _ = newCage(Limits{}).run(t.Context(), of, dir) // TestEnded and TestMachineFails look at the errors
		}
		_, _, _ = newCage(Limits{Wall: time.Millisecond}).run(t.Context(), "hang", dir)
		if i == 1 {
			before = open() // the first runs open what the process keeps
		}
	}
	if after := open(); after > before {
		t.Errorf("%d files were open, now %d", before, after)
	}
	goleak.VerifyNone(t)
}

// A kernel without landlock leaves the other layers: nothing is written.
func TestWithoutLandlock(t *testing.T) {
	t.Parallel()
	s, a, err := newCage(Limits{}).run(t.Context(), noLandlock, attackedDir(t))
	if err != nil || a.Failed != "all refused" {
		t.Errorf("got %q, error %v", a.Failed, err)
	}
	if want := []string{"landlock"}; !slices.Equal(s.Missing, want) {
		t.Errorf("missing %v, want %v", s.Missing, want)
	}
	var log bytes.Buffer
	New(Self, Limits{}, slog.New(slog.NewTextHandler(&log, nil))).tell(s)
	if !strings.Contains(log.String(), "missing=landlock") || !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("the log says %q", log.String())
	}
}

// withC reports whether the C library makes the threads of this program, as it does with the race detector.
func withC() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "1"})
}

// What ends the child has a reason, which is the dump's.
func TestEnded(t *testing.T) {
	t.Parallel()
	noThread := "crashed: fatal error: newosproc"
	if withC() {
		noThread = "crashed: runtime/cgo: pthread_create failed"
	}
	for of, want := range map[string]string{
		"socket":         "tried a system call that is forbidden to it",
		"internet":       "tried a system call that is forbidden to it",
		"exec":           "tried a system call that is forbidden to it",
		"ptrace":         "tried a system call that is forbidden to it",
		"io_uring":       "tried a system call that is forbidden to it",
		"descriptor":     "tried a system call that is forbidden to it",
		"memory":         "the report took more than 512.0 MiB of memory",
		"stack overflow": "crashed: fatal error: stack overflow",
		"concurrent map": "crashed: fatal error: concurrent map writes",
		"threads":        noThread,
		"panic":          `crashed: panic: ?[31mred`,
		"no answer":      "an answer that is no report: EOF",
		"code 7":         "ended with exit status 7",
		"abort":          "was killed, maybe because the machine's memory ran out",
		"output":         "the report is longer than 8.0 MiB",
		"errors":         "crashed: yyyyy",
		"garbage":        "an answer that is no report",
	} {
		// The race detector needs memory of its own, and ends the program when it gets none. It writes its report of the map into
		// the words of the runtime.
		if race.Enabled && (of == "memory" || of == "stack overflow" || of == "concurrent map") {
			continue
		}
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			checkFailed(t, newCage(Limits{}), of, want)
		})
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for of, tc := range map[string]struct {
		limits Limits
		want   string
	}{
		"spin": {Limits{CPU: time.Second}, "the report took more than 1 s of CPU time"},
		"hang": {Limits{Wall: time.Millisecond}, "the report took longer than 1ms"},
		"disk": {Limits{Disk: 8 << 20}, "the report took more than 8.0 MiB of temporary disk space"},
	} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			checkFailed(t, newCage(tc.limits), of, tc.want)
		})
	}
}

func checkFailed(t *testing.T, c *Cage, of, want string) {
	t.Helper()
	_, _, err := c.run(t.Context(), of, t.TempDir())
	var f *FailedError
	if !errors.As(err, &f) || !strings.Contains(f.Reason, want) || len(f.Reason) > maxReason || strings.Contains(f.Reason, "\x1b") {
		t.Errorf("got %v (%T), want %q", err, err, want)
	}
}

// A machine on which the cage does not work is no fault of the dump.
func TestMachineFails(t *testing.T) {
	t.Parallel()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		cage *Cage
		of   string
		dir  string
		ctx  context.Context
		want string
		is   error
	}{
		"not confined": {of: noCage, want: "could not confine itself (exit status 1): no ?[31mcage"},
		"full disk":    {of: fullDisk, dir: storedDump(t, allChunks, true), want: "no space left on device"},
		"barred":       {of: barred, want: "install the corehaul.service of this version"},
		"no program":   {cage: New("/nonexistent/corehaul", Limits{}, slog.Default()), want: "start the program that reads dumps", is: fs.ErrNotExist},
		"no directory": {dir: "/nonexistent/dump", want: "/nonexistent/dump", is: fs.ErrNotExist},
		"cancelled":    {ctx: cancelled, want: "canceled", is: context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.of == fullDisk && os.Getuid() != 0 {
				t.Skip("only root makes a file system that is full")
			}
			c, ctx := tc.cage, tc.ctx
			if c == nil {
				c = newCage(Limits{})
			}
			if ctx == nil {
				ctx = t.Context()
			}
			dir := tc.dir
			if dir == "" {
				dir = t.TempDir()
			}
			_, _, err := c.run(ctx, tc.of, dir)
			var f *FailedError
			if err == nil || errors.As(err, &f) || !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestNoEnvironment(t *testing.T) {
	t.Setenv("COREHAUL_SECRET", "secret")
	_, a, err := newCage(Limits{}).run(t.Context(), "environment", t.TempDir())
	if err != nil || a.Failed != "0 variables, 4 arguments" {
		t.Errorf("got %q, error %v", a.Failed, err)
	}
}

func TestCancelEndsTheChild(t *testing.T) {
	t.Parallel()
	why := errors.New("the receiver stops")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() {
		_, _, err := newCage(Limits{}).run(ctx, "hang", t.TempDir())
		done <- err
	}()
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

// A child ends with its parent, and nothing is left of it. Until then, each of its threads is confined.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	cmd := exec.CommandContext(t.Context(), Self, asParent, "hang", t.TempDir())
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child := confinedChild(t, cmd.Process.Pid)
	fd, err := unix.PidfdOpen(child, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for ready := 0; ready == 0; {
		if ready, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		ready = max(ready, 0)
	}
	if names, err := filepath.Glob(filepath.Join(temp, "*")); err != nil || len(names) > 0 {
		t.Errorf("left: %v, error %v", names, err)
	}
}

// confinedChild waits for the child of a process until that is confined, and returns it.
func confinedChild(t *testing.T, parent int) (pid int) {
	t.Helper()
	confined := []string{"Seccomp:\t2\n", "NoNewPrivs:\t1\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n"}
	for {
		pid = childOf(parent)
		threads, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task/*/status"))
		if err != nil {
			t.Fatal(err)
		}
		all := pid != 0 && len(threads) > 1
		for _, thread := range threads {
			text, _ := os.ReadFile(thread)
			for _, line := range confined {
				all = all && bytes.Contains(text, []byte(line))
			}
		}
		if all {
			return pid
		}
		if t.Context().Err() != nil {
			t.Fatal("the child is not confined")
		}
		time.Sleep(time.Millisecond)
	}
}

// childOf finds the only child of a process, 0 if it has none yet.
func childOf(parent int) int {
	lists, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(parent), "task/*/children"))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return pid
		}
	}
	return 0
}
