package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/machine"
)

// logStyle is which records "corehaul log" prints, and how.
type logStyle struct {
	level, since, time string // as given
	caller             bool

	maxLevel uint8
	from     time.Duration // since boot; negative: before the last record
}

func (l *logStyle) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.level, "level", "", "only records of this `LEVEL` and more severe ones: emerg, alert, crit, err, warn, notice, info, debug")
	cmd.Flags().StringVar(&l.since, "since", "", "only records from this `TIME` on: seconds since boot (12.5), or before the end of the log (-30s)")
	cmd.Flags().StringVar(&l.time, "time", "boot", "`FORM` of time stamps: boot (seconds since boot), utc (about, from the time of the crash), delta, none")
	cmd.Flags().BoolVar(&l.caller, "caller", false, "print the thread (T12) or CPU (C1) that wrote a record, if the kernel kept it")
}

// logLevels are the names of the levels 0 to 7, as dmesg(1) has them.
var logLevels = []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}

var logTimes = []string{"boot", "utc", "delta", "none"}

// parse checks the flags.
func (l *logStyle) parse() error {
	l.maxLevel = math.MaxUint8
	if l.level != "" {
		n := slices.Index(logLevels, l.level)
		if digit, err := strconv.Atoi(l.level); err == nil && digit >= 0 && digit < len(logLevels) {
			n = digit
		}
		if n < 0 {
			return cli.Usagef("--level %s: want one of %s, or 0 to 7", l.level, strings.Join(logLevels, ", "))
		}
		l.maxLevel = uint8(n)
	}
	if !slices.Contains(logTimes, l.time) {
		return cli.Usagef("--time %s: want one of %s", l.time, strings.Join(logTimes, ", "))
	}
	if l.since == "" {
		return nil
	}
	text := l.since
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		text += "s"
	}
	var err error
	if l.from, err = time.ParseDuration(text); err != nil {
		return cli.Usagef("--since %s: want seconds since boot, such as 12.5, or a time before the end of the log, such as -30s", l.since)
	}
	return nil
}

// given reports whether any flag differs from what the text of a log has.
func (l *logStyle) given() bool {
	return l.level != "" || l.since != "" || l.time != "boot" || l.caller
}

// styledLog prints the log from the memory of a dump.
func (a *app) styledLog(ctx context.Context, t *target, l *logStyle) (err error) {
	out := cli.TextOutput(a.stdio.Out)
	defer func() { err = errors.Join(err, out.Close()) }()
	m, err := t.memory(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	k, err := machine.Kernel(m, m.Info())
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	crash, _ := m.Info().VMCOREINFO.CrashTime()
	if l.time == "utc" && crash.IsZero() {
		return fmt.Errorf("%s: VMCOREINFO has no CRASHTIME: only times since boot are known", m.name)
	}
	if err := printk.DumpAs(k, out, l.style(lastStamp(k), crash)); err != nil {
		return cli.WithHint(fmt.Errorf("%s: %w", m.name, err), k.Warnings()...)
	}
	if places := a.tellDamage(m); places > 0 {
		return cli.VerifyFailed(fmt.Errorf("%s: damaged in %d place(s); the log may be incomplete", t.name(), places))
	}
	return nil
}

// lastStamp is the time stamp of the last record, in nanoseconds since boot.
func lastStamp(k *kernel.Kernel) (nsec uint64) {
	for r, err := range printk.Records(k) {
		if err == nil {
			nsec = max(nsec, r.TSNsec)
		}
	}
	return nsec
}

// style is l for a log whose last record was written at last, at the time of the crash.
func (l *logStyle) style(last uint64, crash time.Time) printk.Style {
	from := uint64(max(0, l.from))
	if l.from < 0 {
		from = last - min(last, uint64(-l.from))
	}
	before := uint64(0)
	return printk.Style{
		Keep: func(r *printk.Record) bool { return r.Level <= l.maxLevel && r.TSNsec >= from },
		Stamp: func(r *printk.Record) string {
			stamp := l.stamp(r, before, crash.Add(-time.Duration(min(last-min(last, r.TSNsec), math.MaxInt64))))
			before = r.TSNsec
			return stamp
		},
	}
}

// stamp is what stands before the text of a record that was written at a time, after one with the stamp before.
func (l *logStyle) stamp(r *printk.Record, before uint64, at time.Time) string {
	stamp := ""
	switch l.time {
	case "boot":
		stamp = strings.TrimSuffix(printk.Stamp(r), " ")
	case "utc":
		stamp = "[" + at.UTC().Format("2006-01-02T15:04:05.000Z") + "]"
	case "delta":
		stamp = fmt.Sprintf("[+%12.6f]", float64(r.TSNsec-min(before, r.TSNsec))/1e9)
	}
	if l.caller && r.CallerID != 0 {
		stamp += callerMark(r.CallerID)
	}
	if stamp != "" {
		stamp += " "
	}
	return stamp
}

// callerMark is the caller as the kernel prints it (print_caller in kernel/printk/printk.c): bit 31 says that it is a CPU.
func callerMark(id uint32) string {
	const isCPU = 1 << 31
	if id&isCPU != 0 {
		return fmt.Sprintf("[%6s]", fmt.Sprintf("C%d", id&^isCPU))
	}
	return fmt.Sprintf("[%6s]", fmt.Sprintf("T%d", id))
}
