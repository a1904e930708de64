package pid1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/sender/config"
)

const programsConfig = goodConfig + "[programs]\npre = [\"/bin/a\", \"/bin/hang\"]\npost = [\"/bin/b\"]\n"

// TestPrograms: they run in order around the job, know its result, and cost no dump when they fail.
func TestPrograms(t *testing.T) {
	for _, tc := range []struct {
		name string
		out  Outcome
		want []string
	}{
		{"stored", Outcome{Line: "dump partial", State: "partial", Target: "tls://h:1"}, []string{"COREHAUL_STATE=partial", "COREHAUL_TARGET=tls://h:1", "COREHAUL_RESULT=dump partial"}},
		{"failed", Outcome{Line: "dump failed", Failed: true}, []string{"COREHAUL_STATE=failed", "COREHAUL_TARGET=", "COREHAUL_RESULT=dump failed"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(programsConfig)
			f.dog = &fakeDog{after: 30 * time.Second}
			lines := boot(t, f, func(context.Context, Env) Outcome {
				f.programs = append(f.programs, program{name: "the job"})
				return tc.out
			})
			var names []string
			for _, p := range f.programs {
				names = append(names, p.name)
			}
			if want := []string{"/bin/a", "/bin/hang", "the job", "/bin/b"}; !slices.Equal(names, want) {
				t.Fatalf("ran %q, want %q", names, want)
			}
			post := f.programs[3]
			if got := post.env[len(post.env)-3:]; !slices.Equal(got, tc.want) || post.path != "/programs/bin/b" || post.limit != time.Minute {
				t.Errorf("got %+v, want %q", post, tc.want)
			}
			if said := strings.Join(lines, "\n"); !strings.Contains(said, "warning: pre program /bin/hang: killed") || !strings.Contains(said, tc.out.Line) {
				t.Errorf("the console says %q", lines)
			}
		})
	}
}

// TestPatientProgram: the watchdog bites nobody while a program takes its time.
func TestPatientProgram(t *testing.T) {
	f := newFake("watchdog = \"1m\"\n" + programsConfig + "limit = \"20m\"\n")
	f.dog = &fakeDog{after: 30 * time.Second}
	boot(t, f, func(context.Context, Env) Outcome { return Outcome{Line: "dump complete"} })
	if f.dog.bit != 0 {
		t.Errorf("it reset the machine after %v", f.dog.bit)
	}
}

// script makes a program of a shell script.
func script(t *testing.T, text string) program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return program{path: path, name: "/usr/bin/it", env: []string{"PATH=/bin:/usr/bin", "COREHAUL_STAGE=pre"}, limit: time.Hour}
}

// collect notes lines.
type collect struct {
	mu    sync.Mutex
	lines []string
}

func (c *collect) log(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, fmt.Sprintf(format, args...))
}

func TestRunProgram(t *testing.T) {
	for _, tc := range []struct {
		name, text, err string
		lines           []string
	}{
		{"all well", "echo $COREHAUL_STAGE in $PWD; echo two >&2; printf three", "", []string{"/usr/bin/it: pre in /", "/usr/bin/it: two", "/usr/bin/it: three"}},
		{"it fails", "echo no; exit 3", "exit status 3", []string{"/usr/bin/it: no"}},
		{"it leaves a process behind", "sleep 5 &", "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c collect
			err := linux{}.runProgram(script(t, tc.text), c.log)
			if (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
				t.Errorf("got %v, want %q", err, tc.err)
			}
			if tc.lines != nil && !slices.Equal(c.lines, tc.lines) {
				t.Errorf("got %q, want %q", c.lines, tc.lines)
			}
		})
	}
	p := script(t, "")
	p.path += ".none"
	if err := (linux{}).runProgram(p, t.Logf); err == nil {
		t.Error("a program that is not there ran")
	}
}

// TestProgramIsKilled: with the processes that it started, which would hold the FIFO open.
func TestProgramIsKilled(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	p := script(t, "sleep 1000 > "+fifo+" & wait")
	p.limit = time.Second
	var c collect
	if err := (linux{}).runProgram(p, c.log); err == nil || err.Error() != "killed after 1s" {
		t.Errorf("got %v", err)
	}
	if err := f.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v: a process that it started is alive", err)
	}
}

func TestLineWriter(t *testing.T) {
	var got []string
	w := &lineWriter{line: func(s string) { got = append(got, s) }}
	for _, s := range []string{"a", "b\nc\n\n", strings.Repeat("x", maxProgramLine+1), "y"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
	}
	w.flush()
	w.flush()
	if want := []string{"ab", "c", "", strings.Repeat("x", maxProgramLine), "xy"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestNoPrograms: a configuration that cannot be used starts none.
func TestNoPrograms(t *testing.T) {
	f := newFake(programsConfig)
	delete(f.files, config.Path)
	boot(t, f, func(context.Context, Env) Outcome { return Outcome{} })
	if len(f.programs) != 0 {
		t.Errorf("ran %+v", f.programs)
	}
}
