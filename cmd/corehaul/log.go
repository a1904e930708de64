package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/machine"
)

func newLog(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "log ID|VMCORE", GroupID: groupDumps, Args: cobra.ExactArgs(1), ValidArgsFunction: cli.Complete(a.completeDump),
		Short: "Print the kernel log of a crashed system",
		Long: `Print the kernel log of a crashed system. For a stored dump, print the text that its
sender sent. For a vmcore file, read the log from its memory; if that fails, or finds
too little, print the text beside the file (vmcore-dmesg.txt), with a warning. A
stored text was cut if it was longer than 64 MiB: a line says where its middle is
missing. The vmcore file has all of it. With --level, --since, --caller or --time, the log
is read from the memory in the dump, because the text has no levels and callers. On a terminal, the output escapes control
characters, bidirectional marks, invisible characters, and bytes that are not UTF-8.
A pipe or a file gets every byte unchanged.`,
	}
	var style logStyle
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := style.parse(); err != nil {
			return err
		}
		return a.withTarget(cmd.Context(), args[0], func(t *target) error {
			if style.given() {
				return a.styledLog(cmd.Context(), t, &style)
			}
			return a.log(cmd.Context(), t)
		})
	}
	a.dataFlag(cmd)
	style.flags(cmd)
	return cmd
}

func (a *app) log(ctx context.Context, t *target) (err error) {
	out := cli.TextOutput(a.stdio.Out)
	defer func() { err = errors.Join(err, out.Close()) }()
	if t.isDump() && !t.isVMCore() {
		err := copyLog(ctx, t, out)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	m, err := t.memory(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }() // only read
	read := &counter{w: out}
	err = logOf(m, read)
	places := a.tellDamage(m)
	if err != nil && read.n == 0 && a.logBeside(m.path, out, err) {
		return nil
	}
	if places > 0 {
		return cli.VerifyFailed(errors.Join(err, fmt.Errorf("%s: damaged in %d place(s); the log may be incomplete", t.name(), places)))
	}
	return err
}

// isVMCore reports whether the target is a path to the vmcore of a stored dump. Then its memory is read.
func (t *target) isVMCore() bool {
	return t.file == dumpdir.VMCoreName || t.file == dumpdir.IncompleteName
}

// counter counts the bytes written through it.
type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += n
	return n, err
}

// logBeside prints the log file that lies beside the vmcore file at path, and warns that it replaces the log in
// memory because of why. It reports whether it did.
func (a *app) logBeside(path string, out io.Writer, why error) bool {
	log, err := openBeside(path)
	if err != nil {
		return false
	}
	defer func() { _ = log.Close() }() // only read
	a.stdio.Warn("corehaul", "%v; printing %s instead", why, log.Name())
	_, err = io.Copy(out, log)
	return err == nil
}

// openBeside opens the log file that lies beside the vmcore file at path. It stands for a log in memory that cannot be read.
func openBeside(path string) (*os.File, error) {
	return plainfile.Open(filepath.Join(filepath.Dir(path), dumpdir.LogName))
}

// copyLog prints vmcore-dmesg.txt.
func copyLog(ctx context.Context, t *target, out io.Writer) error {
	d, err := t.dump(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // only read
	log, err := d.OpenLog()
	if err != nil {
		return err
	}
	_, err = io.Copy(out, log)
	if err := errors.Join(err, log.Close()); err != nil {
		return err
	}
	return t.checkLog(ctx, d)
}

// checkLog returns an error if the log of a dump is not what the journal says.
func (t *target) checkLog(ctx context.Context, d *dumpdir.Dump) error {
	intact, err := d.LogIntact(ctx)
	if err == nil && !intact {
		err = cli.VerifyFailed(fmt.Errorf("%s: %s is damaged: its SHA-256 differs from the one in the journal", t.name(), dumpdir.LogName))
	}
	return err
}

// logOf reads the log from the memory of a dump.
func logOf(m *memory, out io.Writer) error {
	k, err := machine.Kernel(m, m.Info())
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	if err := printk.Dump(k, out); err != nil {
		return cli.WithHint(fmt.Errorf("%s: %w", m.name, err), k.Warnings()...)
	}
	return nil
}
