package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/triage"
)

func newPs(a *app) *cobra.Command {
	return a.memoryCommand(&cobra.Command{
		Use: "ps ID|VMCORE", Short: "List the tasks of a crashed machine",
		Long: `List the tasks of a crashed machine, from the kernel's memory in the dump. The columns
are those of the ps command of crash: a ">" marks the tasks that were running, ST is the
state (RU runs or is ready, IN sleeps, UN sleeps and cannot be interrupted, ID is an idle
thread of the kernel, ST is stopped, TR is traced, PA is parked, NE is new, WA wakes up, ZO and
DE have ended), VSZ and RSS are in KiB. Threads of the kernel are in brackets. A warning says what
the list lacks.`,
	}, a.ps)
}

func (a *app) ps(m *triage.Memory) error {
	list := m.Tasks()
	if len(list) == 0 {
		return nothingRead("tasks")
	}
	if a.json {
		return cli.JSON(a.stdio.Out, list)
	}
	var b strings.Builder
	b.WriteString("      PID    PPID  CPU       TASK        ST  %MEM      VSZ      RSS  COMM\n")
	for _, t := range list {
		mark, comm := " ", cli.Printable(t.Comm)
		if t.Active {
			mark = ">"
		}
		if t.Kernel {
			comm = "[" + comm + "]"
		}
		fmt.Fprintf(&b, "%s %7d %7d %3d  %s  %s %5.1f %8d %8d  %s\n", mark, t.PID, t.PPID, t.CPU, t.Task, t.State, t.Percent, t.VSZ>>10, t.RSS>>10, comm)
	}
	_, err := io.WriteString(a.stdio.Out, b.String())
	return err
}
