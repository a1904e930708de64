package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/triage"
)

func newBt(a *app) *cobra.Command {
	var which triage.Which
	var symbols symbolFlags
	var cmd *cobra.Command
	cmd = a.memoryCommand(&cobra.Command{
		Use: "bt ID|VMCORE", Short: "Print the backtrace of the task that crashed",
		Long: `Print the kernel stack of the task that crashed, from the kernel's memory in the dump,
in the form of the bt command of crash. A "?" marks a frame that cannot be proved. The last line says
why a walk ended before the start of the stack.

With the debugging information of that kernel, each frame has its line of the source, after the
functions that the compiler inlined there. It is found by the build id, below /usr/lib/debug and on
the debuginfod servers of $DEBUGINFOD_URLS. Without it, bt works all the same.`,
	}, func(m *triage.Memory) error {
		return a.withSymbols(cmd.Context(), &symbols, m, func() error { return a.bt(m, which) })
	})
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("cpu") && which.CPU < 0 {
			return cli.Usagef("--cpu %d: want a number from 0 on", which.CPU)
		}
		return nil
	}
	cmd.Flags().BoolVar(&which.CPUs, "all", false, "the tasks that were running on all CPUs")
	cmd.Flags().IntVar(&which.CPU, "cpu", -1, "the task that was running on CPU `N`")
	cmd.Flags().StringVar(&which.Task, "task", "", "the task with this `PID` or address of its task_struct")
	cmd.MarkFlagsMutuallyExclusive("all", "cpu", "task")
	symbols.add(cmd, symbolsAuto)
	return cmd
}

func (a *app) bt(m *triage.Memory, which triage.Which) error {
	list, err := m.Backtraces(which)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return nothingRead("stack")
	}
	if a.json {
		return cli.JSON(a.stdio.Out, list)
	}
	var b strings.Builder
	for i := range list {
		if i > 0 {
			b.WriteByte('\n')
		}
		writeBacktrace(&b, &list[i])
	}
	_, err = io.WriteString(a.stdio.Out, b.String())
	return err
}

// writeBacktrace writes a backtrace as crash does.
func writeBacktrace(b *strings.Builder, t *triage.Backtrace) {
	fmt.Fprintf(b, "PID: %-8d TASK: %s  CPU: %-3d  COMMAND: \"%s\"\n", t.PID, t.Task, t.CPU, cli.Printable(t.Comm))
	for n, i := 0, 0; i < len(t.Frames); i++ {
		f := &t.Frames[i]
		if len(f.Registers) == 0 || i == 0 && !f.User {
			fmt.Fprintf(b, "%3s [%s] %s at %s\n", "#"+strconv.Itoa(n), stackOf(f), frameText(f), f.Address)
			n++
			writeLines(b, f)
		} else if !f.User {
			fmt.Fprintf(b, "    [exception RIP: %s]\n", functionPlus(f))
			writeLines(b, f)
		}
		writeRegisters(b, f.Registers)
	}
	if !t.Complete && t.End != "" {
		fmt.Fprintf(b, "    (the walk ended: %s)\n", cli.Printable(t.End))
	}
}

// writeLines writes the lines of a frame as "bt -l" of crash does, what was inlined first.
func writeLines(b *strings.Builder, f *triage.Frame) {
	for _, in := range f.Inlined {
		fmt.Fprintf(b, "    %s (inlined) %s\n", cli.Printable(cmp.Or(in.Function, "(unknown)")), lineText(in.File, in.Line))
	}
	if f.File != "" {
		fmt.Fprintf(b, "    %s\n", lineText(f.File, f.Line))
	}
}

func lineText(file string, line int) string {
	return cli.Printable(fmt.Sprintf("%s: %d", cmp.Or(file, "(unknown)"), line))
}

// stackOf is where the address of a frame lay on the stack; of the first frame, the stack pointer.
func stackOf(f *triage.Frame) string {
	for _, r := range f.Registers {
		if r.Name == "sp" {
			return r.Value
		}
	}
	return f.Stack
}

// frameText names the function of a frame.
func frameText(f *triage.Frame) string {
	name := cmp.Or(f.Function, "(unknown)")
	if f.Module != "" {
		name += " [" + f.Module + "]" + livepatchMark(f.Livepatch)
	}
	if !f.Proved() {
		name = "? " + name
	}
	return cli.Printable(name)
}

// functionPlus is the function of a frame with its offset in decimal, as crash prints it. That does not mark live patches.
func functionPlus(f *triage.Frame) string {
	if f.Function == "" {
		return "unknown or invalid address"
	}
	return cli.Printable(fmt.Sprintf("%s+%d%s", f.Function, f.Offset, livepatchMark(f.Livepatch)))
}
