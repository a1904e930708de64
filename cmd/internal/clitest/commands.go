package clitest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/outputtest"
)

// An Answer is what a command printed, and its exit code.
type Answer struct {
	Code           cli.ExitCode
	Stdout, Stderr []byte
}

// Commands returns the main function of a program that runs many commands in one process: a process for each would take more time to
// start than most commands take. It reads their arguments, without the program's name, from standard input as JSON arrays of
// strings, and writes an Answer for each to standard output.
func Commands(name string, run cli.RunFunc) func() {
	return func() {
		if err := answerAll(os.Stdin, os.Stdout, name, run); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func answerAll(in io.Reader, out io.Writer, name string, run cli.RunFunc) error {
	for from, to := json.NewDecoder(in), json.NewEncoder(out); ; {
		var args []string
		if err := from.Decode(&args); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("standard input is no JSON array of arguments: %w", err)
		}
		var stdout, stderr outputtest.Buffer
		err := run(context.Background(), cli.Stdio{In: strings.NewReader(""), Out: &stdout, Err: &stderr}, args)
		a := Answer{Code: cli.Report(&stderr, name, err), Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}
		if err := to.Encode(a); err != nil {
			return err
		}
	}
}
