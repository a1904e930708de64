package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Cores of the two sides of a bound cell.
const (
	senderCore   = 0
	receiverCore = 1
)

// A usage is what a process and all that it waited for took.
type usage struct {
	cpu float64 // seconds
	rss float64 // bytes; of the largest process
}

// A process is a program of one side, and what it says.
type process struct {
	cmd  *exec.Cmd
	said bytes.Buffer
	rss  string // file of GNU time
}

// newProcess makes a process in a process group of its own, which ends with the context.
func newProcess(ctx context.Context, argv []string) *process {
	p := &process{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Cancel = p.kill
	return p
}

// newMeasured makes a process under GNU time, which notes the memory in a file of its own. The kernel counts the memory of the process
// that started a program as the program's, and that of GNU time is small.
func newMeasured(ctx context.Context, rss string, argv []string) *process {
	p := newProcess(ctx, append([]string{"/usr/bin/time", "--quiet", "--format=%M", "--output=" + rss}, argv...))
	p.rss = rss
	return p
}

// kill ends a process and all that it started in its group.
func (p *process) kill() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

// usage is known when a measured process has ended.
func (p *process) usage() (usage, error) {
	state := p.cmd.ProcessState
	u := usage{cpu: (state.UserTime() + state.SystemTime()).Seconds()}
	text, err := os.ReadFile(p.rss)
	if err != nil {
		return u, err
	}
	kib, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
	if err != nil {
		return u, fmt.Errorf("GNU time notes %q as the memory of %s: %w", text, strings.Join(p.cmd.Args, " "), err)
	}
	u.rss = kib * 1024
	return u, nil
}

// bind puts a command onto a core.
func bind(core int, argv []string) []string {
	return append([]string{"taskset", "--cpu-list", strconv.Itoa(core)}, argv...)
}

// failed adds what a process was and said to its error.
func (p *process) failed(err error) error {
	return fmt.Errorf("%s: %w\n%s", strings.Join(p.cmd.Args, " "), err, p.said.String())
}

// runIn runs a sender to its end.
func (p *process) runIn(ns *namespace) (wall float64, u usage, err error) {
	start := time.Now()
	if err = ns.do(p.cmd.Start); err == nil {
		err = p.cmd.Wait()
	}
	wall = time.Since(start).Seconds()
	if err != nil {
		return 0, usage{}, p.failed(err)
	}
	u, err = p.usage()
	return wall, u, err
}

// stopPatience is how long a server may take for its end, and its sessions for theirs.
const stopPatience = 30 * time.Second

// stop ends a measured server by a signal, once the processes of its sessions have ended.
func (p *process) stop(by syscall.Signal) (usage, error) {
	late := time.AfterFunc(stopPatience, func() { _ = p.kill() }) // then it has failed
	defer late.Stop()
	if err := p.signal(by); err != nil {
		_ = p.kill() // the error matters
		return usage{}, p.failed(errors.Join(err, p.cmd.Wait()))
	}
	// GNU time passes on the end by a signal as a shell does.
	if err := p.cmd.Wait(); err != nil && p.cmd.ProcessState.ExitCode() != 128+int(by) {
		return usage{}, p.failed(err)
	}
	return p.usage()
}

// signal waits until the program under GNU time has no children, whose usage it has then, and sends it a signal.
func (p *process) signal(by syscall.Signal) error {
	programs, err := childrenOf(p.cmd.Process.Pid)
	if err != nil || len(programs) != 1 {
		return errors.Join(errors.New("it has ended by itself"), err)
	}
	for {
		sessions, err := childrenOf(programs[0])
		if err != nil {
			return err
		}
		if len(sessions) == 0 {
			return syscall.Kill(programs[0], by)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// childrenOf are the children of all threads of a process.
func childrenOf(pid int) ([]int, error) {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	entries, err := os.ReadDir(tasks)
	if err != nil {
		return nil, err
	}
	var children []int
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(tasks, e.Name(), "children"))
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			return nil, err // otherwise the thread has ended
		}
		for _, word := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				return nil, err
			}
			children = append(children, child)
		}
	}
	return children, nil
}
