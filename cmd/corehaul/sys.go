package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/triage"
)

func newSys(a *app) *cobra.Command {
	return a.memoryCommand(&cobra.Command{
		Use: "sys ID|VMCORE", Short: "Show the crashed machine and its kernel",
		Long: `Show the crashed machine and its kernel, from the kernel's memory in the dump: what the
sys command of crash shows. DATE is when the kernel crashed, by its own clock, in UTC.`,
	}, a.sys)
}

func (a *app) sys(m *triage.Memory) error {
	r := triage.Overview(m, nil)
	if a.json {
		return cli.JSON(a.stdio.Out, &r.System)
	}
	s := &r.System
	machine := s.Machine
	if s.CPUkHz > 0 {
		machine += fmt.Sprintf("  (%d Mhz)", s.CPUkHz/1000)
	}
	var b strings.Builder
	rows := facts{
		{"CPUS", number(s.CPUs)},
		{"DATE", crashDate(s.CrashTime)},
		{"UPTIME", uptime(s.UptimeMsec)},
		{"LOAD AVERAGE", loadText(s.Load)},
		{"TASKS", number(s.Tasks)},
		{"NODENAME", s.Nodename},
		{"RELEASE", s.Release},
		{"VERSION", s.Version},
		{"MACHINE", machine},
		{"MEMORY", memorySize(s.MemoryBytes)},
		{"PANIC", quoted(r.PanicLine)},
		{"HARDWARE", s.Hardware},
		{"BUILD ID", s.BuildID},
		{"TAINT", taintText(s.Taint)},
	}
	for _, row := range rows {
		if row[1] != "" {
			fmt.Fprintf(&b, "%12s: %s\n", row[0], cli.Printable(row[1]))
		}
	}
	_, err := io.WriteString(a.stdio.Out, b.String())
	return err
}

// number is a count that is unknown if it is 0.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func crashDate(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("Mon Jan _2 15:04:05 MST 2006")
}

// uptime formats milliseconds as crash does: "3 days, 04:05:06".
func uptime(msec uint64) string {
	if msec == 0 {
		return ""
	}
	sec := msec / 1000
	text := fmt.Sprintf("%02d:%02d:%02d", sec/3600%24, sec/60%60, sec%60)
	if days := sec / 86400; days > 0 {
		return fmt.Sprintf("%d days, %s", days, text)
	}
	return text
}

// memorySize formats bytes as crash does, with the units of this program: "1 GiB", "15.9 GiB". Up to 64 MiB below a GiB are what the
// firmware keeps.
func memorySize(n uint64) string {
	if n == 0 {
		return ""
	}
	if up := (n + 1<<30 - 1) >> 30 << 30; up-n <= 64<<20 {
		n = up
	}
	unit, name := 1<<20, "MiB"
	if n >= 1<<30 {
		unit, name = 1<<30, "GiB"
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/float64(unit)), ".0") + " " + name
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return `"` + s + `"`
}

func taintText(t *oops.Taint) string {
	if t == nil {
		return ""
	}
	var texts []string
	for _, f := range t.Flags {
		texts = append(texts, cmp.Or(f.Text, f.Letter+" is not known"))
	}
	return strings.TrimSuffix(t.String()+": "+strings.Join(texts, ", "), ": ")
}

func loadText(load []float64) string {
	var parts []string
	for _, l := range load {
		parts = append(parts, fmt.Sprintf("%.2f", l))
	}
	return strings.Join(parts, ", ")
}
