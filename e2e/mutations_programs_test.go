package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a program may take for a file of 100 KiB, whatever it says of itself.
const (
	mutTimeLimit   = 5 * time.Minute
	mutMemoryLimit = 600 << 20
)

// mutTurns is how many commands one process runs.
const mutTurns = 50

// mutBuild builds both programs so that one process runs many commands: their tests have such mains. The start of a process takes
// longer than most commands on a changed file.
var mutBuild = sync.OnceValue(func() error {
	for _, name := range []string{"corehaul", "corehaul-send"} {
		cmd := exec.CommandContext(context.Background(), "go", "test", "-C", "..", "-c", "-o", "bin/"+name+"-commands", "./cmd/"+name)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
		}
	}
	return nil
})

// mutPrograms are processes of our programs, for one goroutine.
type mutPrograms map[string]*mutProcess

func newMutPrograms(t *testing.T) *mutPrograms {
	t.Helper()
	if err := mutBuild(); err != nil {
		t.Fatal(err)
	}
	m := &mutPrograms{}
	t.Cleanup(func() {
		for _, p := range *m {
			p.end(t)
		}
	})
	return m
}

// run runs a command. If the process ends with it, that is the command's exit code, and what the process said comes with it.
func (m *mutPrograms) run(t *testing.T, name string, args []string) (code int, stdout, stderr string) {
	t.Helper()
	p := (*m)[name]
	if p != nil && p.turns == mutTurns {
		p.end(t)
		p = nil
	}
	if p == nil {
		p = startMutProcess(t, name)
		(*m)[name] = p
	}
	p.turns++
	b, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(mutTimeLimit, func() { _ = p.cmd.Process.Kill() })
	defer hung.Stop()
	if _, err := p.in.Write(b); err == nil {
		if line, err := p.out.ReadBytes('\n'); err == nil {
			return mutAnswer(t, line)
		}
	}
	delete(*m, name)
	_ = p.cmd.Wait() // the caller looks at the exit code
	return p.cmd.ProcessState.ExitCode(), "", fmt.Sprintf("%s%v after %d commands", &p.said, p.cmd.ProcessState, p.turns)
}

func mutAnswer(t *testing.T, line []byte) (code int, stdout, stderr string) {
	t.Helper()
	var a struct {
		Code           int
		Stdout, Stderr []byte
	}
	if err := json.Unmarshal(line, &a); err != nil {
		t.Fatalf("a process says %q: %v", line, err)
	}
	return a.Code, string(a.Stdout), string(a.Stderr)
}

// mutProcess is a process that runs one command after the other.
type mutProcess struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	said  bytes.Buffer // for itself, of no command
	turns int
}

func startMutProcess(t *testing.T, name string) *mutProcess {
	t.Helper()
	path, err := filepath.Abs(judgesBin + name + "-commands")
	if err != nil {
		t.Fatal(err)
	}
	// The context of the test ends before its cleanups, which end the process.
	p := &mutProcess{cmd: exec.CommandContext(context.WithoutCancel(t.Context()), path)}
	p.cmd.Stderr = &p.said
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_DATA, &unix.Rlimit{Cur: mutMemoryLimit, Max: mutMemoryLimit}, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// end ends a process, which has said nothing for itself.
func (p *mutProcess) end(t *testing.T) {
	t.Helper()
	if err := p.in.Close(); err != nil {
		t.Error(err)
	}
	if err := p.cmd.Wait(); err != nil || p.said.Len() > 0 {
		t.Errorf("%s: %v\n%s", p.cmd.Path, err, &p.said)
	}
}
