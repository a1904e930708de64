package main

import "github.com/spf13/cobra"

var drgnDebugger = debugger{
	name: "drgn", packages: "the package is python3-drgn in Debian and Ubuntu, drgn in Fedora and RHEL (EPEL)",
	argv: func(f debuggerFiles, args []string) []string {
		argv := []string{"-c", f.vmcore, "-s", f.vmlinux}
		for _, m := range f.modules {
			argv = append(argv, "-s", m)
		}
		return append(argv, args...) // a script and its arguments end the options
	},
	modules: true,
}

func newDrgn(a *app) *cobra.Command { return a.debuggerCommand(drgnDebugger) }
