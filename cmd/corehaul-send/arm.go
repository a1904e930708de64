package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/sender/arm"
	"github.com/corehaul/corehaul/sender/arm/reservation"
	"github.com/corehaul/corehaul/sender/hostnet"
)

// defaultConfig is where arm looks for the configuration.
const defaultConfig = "/etc/corehaul-send.toml"

func newArm(stdio cli.Stdio) *cobra.Command {
	o := arm.Options{Tool: tool(), CheckKeys: checkKeys, Ways: ways}
	var dry, write, changed, asJSON bool
	cmd := &cobra.Command{
		Use: "arm [flags]", Short: "Make this machine ready to dump: pack the image of a capture kernel and load it",
		Long: `Checks the configuration and its keys, finds the drivers of this machine's network cards,
disks and watchdog, packs them with this program into an image, and loads it with the kernel
for the next crash. Nothing of it is written to a disk. Run it again after each change of
configuration, keys or network, and at each boot (contrib/corehaul-arm.service). With
--if-changed it packs and loads only if the image is out of date (contrib/corehaul-rearm.timer).

If the configuration has no [network], static addresses, routes, a VLAN or a bond on the way
to the targets are copied from the running system.

The running kernel must have reserved memory (crashkernel= on its command line). If it has
not, this command says what to write where. With --write it writes that itself, where the
distribution has a tool for it (update-grub, grubby), and asks for a reboot.

The capture kernel is the running one, unless --kernel or the configuration names another.
Its command line is that of the running kernel without the words that harm it, and with those
that it needs. The configuration is that of 'corehaul-send initrd', and may have a table

  [arm]
  kernel = "FILE"                 the capture kernel
  remove = ["quiet", "rd.*"]      names of words to remove; replaces the built-in list
  add = ["nr_cpus=1", "irqpoll"]  words to add; replaces the built-in list
  sysctl = ["kernel.panic_on_oops=1"]

An image that another program has loaded (kdump-tools, kdumpctl) stays unless --replace is
given. An interrupted arm leaves the old image or the new one.`,
		Example: "  corehaul-send arm --config /etc/corehaul-send.toml\n  corehaul-send arm --dry-run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("this program: %w", err)
			}
			o.Init = self
			switch {
			case write:
				return writeReservation(cmd.Context(), stdio, o, asJSON)
			case dry:
				return dryArm(cmd.Context(), stdio, o, asJSON)
			case changed:
				return armChanged(cmd.Context(), stdio, o, asJSON)
			}
			return armMachine(cmd.Context(), stdio, o, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Config, "config", defaultConfig, "configuration `FILE` of the capture side")
	flags.StringVar(&o.Kernel, "kernel", "", "`FILE` of the capture kernel (default: the running kernel's)")
	flags.BoolVar(&o.Replace, "replace", false, "take the place of an image that another program has loaded")
	flags.BoolVar(&dry, "dry-run", false, "check and pack, but load nothing")
	flags.BoolVar(&write, "write", false, "write crashkernel= into the boot configuration, if nothing is reserved")
	flags.BoolVar(&changed, "if-changed", false, "do nothing unless this machine is armed, and the image is not what would be packed now")
	flags.BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "write", "if-changed")
	return cmd
}

// ways finds the way of this machine to a host.
func ways(ctx context.Context, host string) (*hostnet.Path, error) {
	return hostnet.PathToHost(ctx, "/sys", host)
}

// armChanged arms again if that gives another image. A machine that somebody has disarmed stays so.
func armChanged(ctx context.Context, stdio cli.Stdio, o arm.Options, asJSON bool) error {
	s, err := arm.Look(ctx, "/", ways, nil)
	if err != nil {
		return err
	}
	if s.State == arm.NotArmed || !s.Stale() {
		return say(stdio, asJSON, armedDoc{Result: resultUnchanged}, func() error {
			_, err := fmt.Fprintln(stdio.Out, "nothing to do: 'corehaul-send status' says more")
			return err
		})
	}
	return armMachine(ctx, stdio, o, asJSON)
}

func armMachine(ctx context.Context, stdio cli.Stdio, o arm.Options, asJSON bool) error {
	p, err := arm.Arm(ctx, o)
	if p != nil && !asJSON {
		err = errors.Join(err, printPlanOf(stdio, p))
	}
	if err != nil {
		return err
	}
	s, err := arm.Look(ctx, "/", ways, nil)
	if err != nil {
		return err
	}
	return say(stdio, asJSON, armedDoc{Result: resultArmed, Image: s.Loaded, Findings: s.Findings}, func() error {
		warnOf(stdio, s.Findings)
		return nil
	})
}

// dryArm says what would be loaded.
func dryArm(ctx context.Context, stdio cli.Stdio, o arm.Options, asJSON bool) error {
	p, err := arm.Prepare(ctx, o)
	if err != nil {
		return err
	}
	defer p.Close()
	for _, m := range p.Report.Missing {
		stdio.Warn(name, "this machine needs the module %s, which %s does not have", m, p.Record.Kernel.Release)
	}
	return say(stdio, asJSON, armedDoc{Result: resultWouldArm, Image: &p.Record, Findings: p.Findings()}, func() error {
		warnOf(stdio, p.Findings())
		return printPlanOf(stdio, p)
	})
}

// writeReservation writes crashkernel= into the boot configuration, if the running kernel has reserved nothing.
func writeReservation(ctx context.Context, stdio cli.Stdio, o arm.Options, asJSON bool) error {
	_, err := arm.Reserved("/")
	missing, ok := errors.AsType[*arm.NotReservedError](err)
	switch {
	case err == nil:
		return say(stdio, asJSON, armedDoc{Result: resultReserved}, func() error {
			_, err := fmt.Fprintln(stdio.Out, "memory is reserved already: nothing to write")
			return err
		})
	case !ok:
		return err
	case !missing.Boot.CanWrite():
		return err
	}
	if err := missing.Boot.Write(ctx, missing.Size); err != nil {
		return err
	}
	doc := armedDoc{Result: resultWritten, Word: reservation.Word(missing.Size), Loader: missing.Boot.Loader}
	return say(stdio, asJSON, doc, func() error {
		_, err := fmt.Fprintf(stdio.Out, "%s is in the configuration of %s: reboot, then arm\n", doc.Word, doc.Loader)
		return err
	})
}

// printPlanOf says what an image has, and what it may lack.
func printPlanOf(stdio cli.Stdio, p *arm.Plan) error {
	r := &p.Record
	for _, m := range p.Report.NoFirmware {
		stdio.Warn(name, "%s may need firmware that /lib/firmware does not have: some cards do not work without it", m)
	}
	if err := warnOfDisks(stdio, p.Report, "the image"); err != nil {
		return err
	}
	t := cli.NewTable(stdio.Out)
	t.Row("kernel", r.Kernel.Path, r.Kernel.Release)
	for _, m := range r.Modules {
		t.Row("module", m, "")
	}
	t.Row("image", bytesize.Format(r.Packed), "unpacked "+bytesize.Format(r.Unpacked))
	t.Row("needs", "about "+bytesize.Format(r.Needs), "")
	for _, to := range r.To {
		t.Row("sends to", to, "")
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(stdio.Out, "command line: %s\n", cli.Printable(r.Cmdline))
	return err
}

// warnOf prints the findings on standard error.
func warnOf(stdio cli.Stdio, findings []arm.Finding) {
	for _, f := range findings {
		kind := "note"
		if f.Problem {
			kind = "warning"
		}
		_, _ = fmt.Fprintf(stdio.Err, "%s: %s: %s\nhint: %s\n", name, kind, cli.Printable(f.What), cli.Printable(f.Do))
	}
}
