package cage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/internal/printable"
)

// maxErrors is how much of a child's standard error is kept: the beginning, which names a fatal error of the Go runtime.
const maxErrors = 4 << 10

// diskInterval is how often the parent looks at the size of the temporary file.
const diskInterval = 100 * time.Millisecond

// run starts a child for the directory dir and returns its answer.
func (c *Cage) run(ctx context.Context, of, dir string) (state, answer, error) {
	c = c.sized(dir)
	front, err := dumpdir.NewFront(frontDir(of, dir))
	if err != nil {
		return state{}, answer{}, err
	}
	defer func() { _ = front.Close() }() // it has no name, so nothing is left of it
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer time.AfterFunc(c.limits.Wall, func() { end(failed("the report took longer than %v", c.limits.Wall)) }).Stop()
	out := &capped{max: int(c.limits.Output), full: func() { end(failed("the report is longer than %s", bytesize.Format(c.limits.Output))) }}
	errs := &capped{max: maxErrors}
	cmd, err := c.command(ctx, of, dir, front)
	if err != nil {
		return state{}, answer{}, err
	}
	cmd.Stdout, cmd.Stderr = out, errs
	if err := c.wait(ctx, cmd, front, end); err != nil && cmd.ProcessState == nil {
		return state{}, answer{}, err
	}
	s, a, err := c.verdict(ctx, cmd.ProcessState, out.kept, errs.kept)
	if err == nil && a.NoSpace != "" {
		err = fmt.Errorf("no room for the temporary file beside %s: %s", front.Name(), printable.Clean(a.NoSpace, maxReason))
	}
	return s, a, err
}

// frontDir is the directory for the front. The front of a dump lies on the disk of the dump, which has about as many bytes at the
// beginning of vmcore. A directory for temporary files is often memory, of a size that has nothing to do with dumps.
func frontDir(of, dir string) string {
	if of == ofDump {
		return dir
	}
	return os.TempDir()
}

// command prepares the child. Its working directory is the dump's, so it reads this directory even if its name changes meanwhile.
func (c *Cage) command(ctx context.Context, of, dir string, front *os.File) (*exec.Cmd, error) {
	if _, err := os.Stat(dir); err != nil { // the error of Start does not say what is missing
		return nil, err
	}
	limits, err := json.Marshal(c.limits)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, c.program, ChildCommand, of, string(limits))
	cmd.Args[0] = "corehaul"
	cmd.Dir, cmd.Env = dir, []string{}
	cmd.ExtraFiles = []*os.File{front} // frontFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 10 * time.Second
	return cmd, nil
}

// wait runs the child, and ends it when its temporary file is too large. The kernel sends the signal of Pdeathsig when the thread
// ends that started the child, so this goroutine keeps its thread.
func (c *Cage) wait(ctx context.Context, cmd *exec.Cmd, front *os.File, end context.CancelCauseFunc) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return cmp.Or(context.Cause(ctx), fmt.Errorf("start the program that reads dumps: %w", err))
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	go func() {
		for tick := time.Tick(diskInterval); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick:
				if info, err := front.Stat(); err == nil && plainfile.Blocks(info) > c.limits.Disk {
					end(failed("the report took more than %s of temporary disk space", bytesize.Format(c.limits.Disk)))
				}
			}
		}
	}()
	return cmd.Wait()
}

// verdict tells an answer, a failure of the dump and one of the machine from each other.
func (c *Cage) verdict(ctx context.Context, ended *os.ProcessState, out, errs []byte) (state, answer, error) {
	if ctx.Err() != nil {
		return state{}, answer{}, context.Cause(ctx)
	}
	s, a, confined, err := decode(out)
	status, _ := ended.Sys().(syscall.WaitStatus)
	switch {
	case !confined:
		return s, a, c.notConfined(ended, errs)
	case status.Signaled(), status.ExitStatus() != 0:
		reason := c.reason(ended, status, errs)
		c.log.Warn("the program that reads dumps has ended without a report", "reason", reason.Reason, "stderr", printable.Escape(string(errs)))
		return s, a, reason
	case err != nil:
		return s, a, failed("the program that reads the dump gave an answer that is no report: %v", err)
	}
	return s, a, nil
}

// notConfined is the error of a child that ended before it had confined itself.
func (c *Cage) notConfined(ended *os.ProcessState, errs []byte) error {
	status, _ := ended.Sys().(syscall.WaitStatus)
	if status.Signaled() && status.Signal() == syscall.SIGSYS {
		return errors.New("the program that reads dumps may not confine itself: a filter of system calls forbids landlock_* or seccomp; " +
			"with systemd, install the corehaul.service of this version")
	}
	return fmt.Errorf("the program that reads dumps could not confine itself (%v): %s", ended, printable.Clean(firstLine(errs), maxReason))
}

// reason says why a confined child ended.
func (c *Cage) reason(ended *os.ProcessState, status syscall.WaitStatus, errs []byte) *FailedError {
	const margin = time.Second // the kernel compares whole seconds of another sum
	line := crashLine(errs)
	switch {
	case status.Signaled() && status.Signal() == syscall.SIGSYS:
		return failed("the program that reads the dump tried a system call that is forbidden to it: the dump may be made to attack the receiver")
	case status.Signaled() && status.Signal() == syscall.SIGKILL && ended.UserTime()+ended.SystemTime() >= c.limits.CPU-margin:
		return failed("the report took more than %d s of CPU time", int(c.limits.CPU.Seconds()))
	case status.Signaled() && status.Signal() == syscall.SIGKILL:
		return failed("the program that reads the dump was killed, maybe because the machine's memory ran out")
	case status.Signaled():
		return failed("the program that reads the dump was ended by a signal: %v", status.Signal())
	case strings.Contains(line, "out of memory"), strings.Contains(line, "cannot allocate memory"):
		return failed("the report took more than %s of memory", bytesize.Format(c.limits.Memory))
	case line != "":
		return failed("the program that reads the dump crashed: %s", line)
	}
	return failed("the program that reads the dump ended with %v", ended)
}

// crashLine finds the line with which the Go runtime says why it ends a program.
func crashLine(errs []byte) string {
	for line := range strings.Lines(string(errs)) {
		if strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "runtime: out of memory") {
			return strings.TrimSpace(line)
		}
	}
	return firstLine(errs)
}

func firstLine(text []byte) string {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return string(line)
}

// capped keeps the beginning of what is written to it. It drops the rest, and calls full once.
type capped struct {
	kept []byte
	max  int
	full func() // may be nil
}

// Write implements io.Writer.
func (w *capped) Write(p []byte) (int, error) {
	room := w.max - len(w.kept)
	w.kept = append(w.kept, p[:min(len(p), room)]...)
	if len(p) > room && w.full != nil {
		w.full()
		w.full = nil
	}
	return len(p), nil
}
