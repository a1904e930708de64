package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/sender"
	"github.com/corehaul/corehaul/sender/arm"
	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/pid1"
)

func newEmbed(stdio cli.Stdio) *cobra.Command {
	o := arm.Options{Tool: tool(), CheckKeys: checkKeys, Ways: ways}
	var release string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "embed DIR [flags]", Short: "Put this program into the image of kdump",
		Long: `For machines that keep kdump-tools, kdumpctl or SUSE's kdump. Finds what 'arm' finds, and writes
it below DIR, the tree from which the initramfs of kdump is made: this program, the modules for
the way to the targets, configuration, keys and network. In the capture kernel, 'corehaul-send
capture' sends the dump before kdump saves it.

The hooks of the package for initramfs-tools and dracut call this command (docs/kdump-admin.md).
It loads nothing. The image has the keys of this machine: nobody else may read it.`,
		Example: "  corehaul-send embed \"$DESTDIR\" --release 6.1.0-45-amd64",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if release == "" || strings.Contains(release, "/") {
				return cli.Usagef("--release %q is not the release of a kernel, as 'uname -r' prints it", release)
			}
			return embed(cmd.Context(), stdio, o, args[0], release, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Config, "config", defaultConfig, "configuration `FILE` of the capture side")
	flags.StringVar(&release, "release", "", "`RELEASE` of the capture kernel, whose modules are in /lib/modules")
	flags.BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func embed(ctx context.Context, stdio cli.Stdio, o arm.Options, dir, release string, asJSON bool) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("this program: %w", err)
	}
	o.Init = self
	p, err := arm.Embed(ctx, o, dir, release)
	if err != nil {
		return err
	}
	for _, m := range p.Report.Missing {
		stdio.Warn(name, "this machine needs the module %s, which %s does not have", m, release)
	}
	return say(stdio, asJSON, armedDoc{Result: resultEmbedded, Image: &p.Record, Findings: p.Findings()}, func() error {
		warnOf(stdio, p.Findings())
		for _, m := range p.Report.NoFirmware {
			stdio.Warn(name, "%s may need firmware that /lib/firmware does not have: some cards do not work without it", m)
		}
		if err := warnOfDisks(stdio, p.Report, "the image"); err != nil {
			return err
		}
		_, err := fmt.Fprintf(stdio.Out, "%s: kdump's image of %s has %s more, and sends to %s\n", name, cli.Printable(release),
			bytesize.Format(p.Record.Unpacked), cli.Printable(strings.Join(p.Record.To, ", ")))
		return err
	})
}

func newCapture(cli.Stdio) *cobra.Command {
	return &cobra.Command{
		Use: "capture", Short: "Send the dump from kdump's capture kernel, and reboot",
		Long: `Does in an image of kdump, into which 'corehaul-send embed' has put this program, what it does
as PID 1 of its own image: loads modules, brings the network up, and sends the dump as the
configuration there says. When the dump is stored, the machine reboots (after = in the
configuration). Otherwise this command fails, and kdump goes on as without it.

The hooks of the package for initramfs-tools and dracut call this command (docs/kdump-admin.md).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, need := range []struct{ file, what, hint string }{
				{sender.VMCore, "this kernel was not started by the crash of another one", "'corehaul-send send FILE' sends a dump that is a file"},
				{config.Path, "this is no image of a capture kernel", "'corehaul-send embed' makes it one"},
			} {
				if _, err := os.Stat(need.file); errors.Is(err, fs.ErrNotExist) {
					return cli.WithHint(fmt.Errorf("%s: there is no %s", need.what, need.file), need.hint)
				}
			}
			if out := pid1.Beside(cmd.Context(), capture); out.Failed {
				return errors.New(out.Line)
			}
			return nil
		},
	}
}
