package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Arm configures `corehaul-send arm`, which loads the capture kernel of the running machine.
type Arm struct {
	// Kernel is the capture kernel. Empty means the file of the running kernel.
	Kernel string `toml:"kernel"`
	// Remove has the names of words that the capture kernel's command line does not take over from the running kernel, and
	// Add what it gets besides. nil means the defaults of package cmdline. See cmdline.Capture.
	Remove []string `toml:"remove"`
	Add    []string `toml:"add"`
	// Sysctl lists settings of the running kernel, NAME=NUMBER, that arm makes: when a fault becomes a panic. NAME is one of
	// Sysctls.
	Sysctl []string `toml:"sysctl"`
}

// Sysctls are the settings of a kernel that decide whether a fault becomes a panic, and so a dump
// (Documentation/admin-guide/sysctl/kernel.rst). kernel.sysrq lets people ask for one.
var Sysctls = []string{
	"kernel.panic_on_oops", "kernel.panic_on_warn", "kernel.unknown_nmi_panic", "kernel.panic_on_unrecovered_nmi", "kernel.panic_on_io_nmi",
	"kernel.hung_task_panic", "kernel.softlockup_panic", "kernel.hardlockup_panic", "kernel.panic_on_rcu_stall", "vm.panic_on_oom", "kernel.sysrq",
}

func (a *Arm) check() error {
	for _, s := range a.Sysctl {
		name, value, _ := strings.Cut(s, "=")
		if !slices.Contains(Sysctls, name) {
			return fmt.Errorf("%q is none of %s", name, strings.Join(Sysctls, ", "))
		}
		if _, err := strconv.ParseUint(value, 10, 31); err != nil {
			return fmt.Errorf("%q: write NAME=NUMBER", s)
		}
	}
	return nil
}
