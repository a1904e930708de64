package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/triage"
)

func newMods(a *app) *cobra.Command {
	return a.memoryCommand(&cobra.Command{
		Use: "mods ID|VMCORE", Short: "List the modules of a crashed kernel",
		Long: `List the modules of a crashed kernel, from its memory in the dump. The first columns are
those of the mod command of crash: MODULE is the address of the struct module, BASE where its code
starts, SIZE its bytes. TAINTS are the letters of /proc/modules, USED BY the modules that need it.
A warning says what the list lacks.`,
	}, a.mods)
}

func (a *app) mods(m *triage.Memory) error {
	list := m.Modules()
	if list == nil {
		return nothingRead("modules")
	}
	if a.json {
		return cli.JSON(a.stdio.Out, list)
	}
	width := len("NAME")
	for _, x := range list {
		width = max(width, len(cli.Printable(x.Name)))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "     MODULE       %-*s       BASE            SIZE  TAINTS  VERSION  USED BY\n", width, "NAME")
	for _, x := range list {
		fmt.Fprintf(&b, "%s  %-*s  %s  %7d  %-6s  %-7s  %s\n", x.Module, width, cli.Printable(x.Name), x.Base, x.Size,
			cli.Printable(dash(x.Taints)), cli.Printable(dash(x.Version)), cli.Printable(dash(strings.Join(x.UsedBy, ","))))
	}
	_, err := io.WriteString(a.stdio.Out, b.String())
	return err
}

// dash stands for what is not there.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
