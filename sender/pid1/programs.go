package pid1

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/sender/config"
)

const (
	// lastWords is how long a program that was killed may keep its output open: a process may have left its group.
	lastWords = 2 * time.Second
	// maxProgramLine bounds a line of a program on the console.
	maxProgramLine = 1000
)

// A program is one of the site's; see config.Programs.
type program struct {
	path  string // in the image
	name  string // as the configuration has it
	env   []string
	limit time.Duration
}

// runPrograms runs the programs of a list, one after the other. What one of them does costs no dump: it is killed after the
// limit, its failure is a line on the console, and the watchdog is fed meanwhile.
func (r *runner) runPrograms(stage string, files []string, env ...string) {
	for _, file := range files {
		r.begin(stage + " program " + file)
		p := program{
			path: config.ProgramPath(file), name: file, limit: time.Duration(r.cfg.Programs.Limit),
			env: append([]string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "COREHAUL_STAGE=" + stage, "COREHAUL_TO=" + strings.Join(r.cfg.To, " ")}, env...),
		}
		if err := r.whileAlive(func() error { return r.sys.runProgram(p, r.console.Printf) }); err != nil {
			r.console.Printf("warning: %s program %s: %v", stage, file, err)
		}
	}
}

// whileAlive calls f, which takes a bounded time, and tells the watchdog meanwhile that nothing hangs.
func (r *runner) whileAlive(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			r.alive()
		}
	}
}

// runProgram runs a program in a process group of its own, with its output on the console.
func (linux) runProgram(p program, log func(string, ...any)) error {
	ctx, cancel := context.WithTimeout(context.Background(), p.limit)
	defer cancel()
	out := &lineWriter{line: func(line string) { log("%s: %s", p.name, line) }}
	cmd := exec.CommandContext(ctx, p.path)
	cmd.Args, cmd.Env, cmd.Dir = []string{p.name}, p.env, "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = lastWords
	err := cmd.Run()
	out.flush()
	if ctx.Err() != nil {
		return fmt.Errorf("killed after %v", p.limit)
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it left a process behind that has its output open
	}
	return err
}

// lineWriter passes on what is written as lines. It is safe for concurrent use.
type lineWriter struct {
	line func(string)

	mu   sync.Mutex
	rest []byte
}

// Write never fails.
func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, b...)
	for {
		end := bytes.IndexByte(w.rest, '\n')
		next := end + 1
		if end < 0 {
			if len(w.rest) < maxProgramLine {
				return len(b), nil
			}
			end, next = maxProgramLine, maxProgramLine
		}
		w.line(string(w.rest[:end]))
		w.rest = w.rest[next:]
	}
}

// flush passes on a last line without an end.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) > 0 {
		w.line(string(w.rest))
	}
	w.rest = nil
}
