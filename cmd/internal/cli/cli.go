// Package cli is what corehaul and corehaul-send share at the command line: starting a program, exit codes, errors
// with hints, environment variables for flags, and the formats of sizes, durations, tables and JSON.
//
// A program is a three-line main around a function run(ctx, stdio, args) error, which tests call directly:
//
//	func main() { os.Exit(cli.Main("corehaul", run)) }
//
// Results go to standard output. All else goes to standard error, each line after the name of the program. The
// package links neither SQL nor HTTP, because the sender must stay small. Functions are safe for concurrent use. A
// Program runs one command at a time.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Stdio holds the three streams of a command, so that tests can supply their own.
type Stdio struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// OSStdio returns the streams of this process.
func OSStdio() Stdio { return Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr} }

// RunFunc is the body of a program. args do not include its name.
type RunFunc func(ctx context.Context, stdio Stdio, args []string) error

// Main runs a program with the arguments and streams of this process and returns its exit code. The first SIGINT or
// SIGTERM cancels the context. The second one kills the program.
func Main(name string, run RunFunc) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	stdio := OSStdio()
	return int(Report(stdio.Err, name, run(ctx, stdio, os.Args[1:])))
}

// Report writes err to w as one line "name: ..." with its hint lines, and returns its exit code. It writes nothing
// for a nil error or an *ExitError without a cause.
func Report(w io.Writer, name string, err error) ExitCode {
	code := CodeOf(err)
	if err == nil {
		return code
	}
	if _, ok := errors.AsType[*jsonError](err); ok {
		reportJSON(w, err)
		return code
	}
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Err != nil {
		_, _ = fmt.Fprintf(w, "%s: %s\n", name, oneLine(err.Error()))
	}
	for _, hint := range Hints(err) {
		_, _ = fmt.Fprintf(w, "hint: %s\n", oneLine(hint))
	}
	return code
}

// Warn writes "name: warning: ..." to standard error.
func (s Stdio) Warn(name, format string, args ...any) {
	_, _ = fmt.Fprintf(s.Err, "%s: warning: %s\n", name, oneLine(fmt.Sprintf(format, args...)))
}

// oneLine makes one line of a text that may contain a peer's words, without characters that control a terminal.
func oneLine(s string) string { return Printable(strings.TrimRight(s, "\n")) }

// prepare gives the commands below root their common behaviour: Report and not cobra prints errors, flags take values
// from the environment (see env.go), help ends with the exit codes, and a group of commands asks for one of them.
// *ran is set when a command's own code begins.
func prepare(root *cobra.Command, ran *bool) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = false
	root.Args = cobra.ArbitraryArgs // runner names the unknown command
	root.SetHelpFunc(help)
	root.InitDefaultHelpCmd()
	addCompletion(root)
	root.AddCommand(environmentTopic(root))
	walk(root, func(cmd *cobra.Command) { prepareCommand(cmd, ran) })
}

// addCompletion adds the command of cobra that writes the scripts for shells, as a group of commands like others.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	if cmd, _, err := root.Find([]string{"completion"}); err == nil && cmd != root {
		cmd.Args = nil
	}
}

func prepareCommand(cmd *cobra.Command, ran *bool) {
	if cmd.IsAdditionalHelpTopicCommand() && cmd.Run == nil && cmd.RunE == nil && !cmd.HasSubCommands() {
		return
	}
	describeFlags(cmd)
	cmd.SetUsageFunc(usage)
	body := runner(cmd)
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return WithHint(argumentError(cmd, args, err), fmt.Sprintf("'%s --help' shows how to use it", cmd.CommandPath()))
			}
			return nil
		}
	}
	cmd.Run = nil
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := applyEnvironment(cmd); err != nil {
			return err
		}
		*ran = true
		return body(cmd, args)
	}
}

// runner returns what cmd does. A group of commands returns a usage error.
func runner(cmd *cobra.Command) func(*cobra.Command, []string) error {
	switch {
	case cmd.Name() == "help":
		return helpFor
	case cmd.RunE != nil:
		return cmd.RunE
	case cmd.Run != nil:
		run := cmd.Run
		return func(cmd *cobra.Command, args []string) error { run(cmd, args); return nil }
	}
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return WithHint(Usage(errors.New("no command given")), fmt.Sprintf("'%s --help' lists the commands", cmd.CommandPath()))
	}
}

// walk calls f for cmd and all commands below it.
func walk(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, f)
	}
}
