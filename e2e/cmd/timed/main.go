// Command timed runs the phases of `make test` and tells what took long:
//
//	timed -to FILE PHASE COMMAND ARG...   run a command, note what it took in FILE
//	timed -report FILE                    print tables of what FILE notes
//	timed -report FILE -doc PAGE          put the tables between the marks of a page
//
// A command that prints the events of `go test -json` is read: what go test prints without -json
// comes out, and the times of packages and tests are noted as well. Several phases may note in one FILE at a time.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// A note is a line of the file: what a phase, a package or a test took.
type note struct {
	Phase   string  `json:"phase"`
	Package string  `json:"package,omitempty"`
	Test    string  `json:"test,omitempty"`
	Seconds float64 `json:"seconds"`
	// CPU is in seconds too, of the command and all that it waited for; phases only.
	CPU float64 `json:"cpu,omitempty"`
	// Said is how a failed test begins to tell why.
	Said string `json:"said,omitempty"`
}

// errUsage is answered with the flags and exit code 2.
var errUsage = errors.New("usage: timed -to FILE PHASE COMMAND ARG... | timed -report FILE [-doc PAGE]")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(1, exit.ExitCode())) // the command has told why
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "timed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("timed", flag.ContinueOnError)
	to := f.String("to", "", "append what the command took to this file")
	from := f.String("report", "", "print what this file notes")
	page := f.String("doc", "", "put the report into this page")
	if err := f.Parse(args); err != nil {
		return errUsage
	}
	switch {
	case *from != "" && *to == "" && f.NArg() == 0:
		return reportTo(out, *from, *page)
	case *to != "" && *from == "" && *page == "" && f.NArg() >= 2:
		return phase(ctx, *to, f.Arg(0), f.Args()[1:], out)
	}
	return errUsage
}

// phase runs a command to its end and notes what it took, whether it failed or not.
func phase(ctx context.Context, file, name string, command []string, out io.Writer) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	start := time.Now()
	notes, err := runAndRead(cmd, out)
	if cmd.ProcessState == nil {
		return err
	}
	for i := range notes {
		notes[i].Phase = name
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	notes = append(notes, note{Phase: name, Seconds: time.Since(start).Seconds(), CPU: cpu.Seconds()})
	return errors.Join(err, appendNotes(file, notes))
}

// runAndRead runs a command; the output of one that prints events is read.
func runAndRead(cmd *exec.Cmd, out io.Writer) ([]note, error) {
	if !slices.Contains(cmd.Args, "-json") {
		cmd.Stdout = out
		return nil, cmd.Run()
	}
	events, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	notes, readErr := readEvents(events, out)
	return notes, errors.Join(cmd.Wait(), readErr)
}

// appendNotes writes all notes at once, so that those of phases at the same time do not mix.
func appendNotes(file string, notes []note) error {
	var lines []byte
	for _, n := range notes {
		b, err := json.Marshal(n)
		if err != nil {
			return err
		}
		lines = append(append(lines, b...), '\n')
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(lines)
	return errors.Join(err, f.Close())
}
