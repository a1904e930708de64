package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/sender/initrd"
)

func newInitrd(stdio cli.Stdio) *cobra.Command {
	var o initrd.Options
	var output string
	cmd := &cobra.Command{
		Use: "initrd --config FILE -o FILE [flags]", Short: "Build the initramfs of a capture kernel",
		Long: `Packs an initramfs with this program as its /init, kernel modules with all that they need, the
drivers of their bus and their firmware too, the configuration and the keys named in it. Load it, in memory that
crashkernel=256M on the command line of the running kernel has reserved, with

  kexec -p KERNEL --initrd=FILE --append="console=ttyS0 nr_cpus=1 irqpoll reset_devices panic=10"

The configuration (TOML) has these keys; all but to and what its targets need may be left out:

  to = ["tls://HOST:PORT", "ssh://USER@HOST[:PORT][/PATH]", ...]
  identity = "FILE"             for tls://, made by 'corehaul ca issue'
  ssh_key = "FILE"              for ssh://, a private key without a passphrase
  known_hosts = "FILE"          for ssh://, the servers' keys as ssh-keyscan writes them
  level = 31                    encoding = "auto"        collect = "all" | "log"
  deadline = "30m"              patience = "15m"         stall = "2m"
  watchdog = "auto" | "off" | "3m"                       after = "reboot" | "poweroff" | "halt"
  modules = ["NAME PARAMS"]     console = "/dev/ttyS1"   progress = "5s"
  [network]
  mode = "dhcp" | "static" | "none"     interface = "eth0" or a MAC address
  address = ["192.0.2.7/24"]            gateway = ["192.0.2.1"]
  dns = ["192.0.2.53"]                  mtu = 1500

The program tries the receivers of to in this order. It skips one that fails or refuses, and tries
it again later while the patience lasts; one that has a part of the dump goes first.
/dev/watchdog, if there is one or a module brings it, resets the machine when there was no
progress for the time that watchdog says (auto: 3m).

On the kernel command line, corehaul.KEY=VALUE overrides to, level, encoding, collect,
deadline, patience, stall, watchdog, after, console, progress, network (the mode), interface,
address, gateway, dns and mtu; lists are separated by commas.

The file holds the host's secret keys and has rights 0600.`,
		Example: "  corehaul-send initrd --kernel-modules /lib/modules/$(uname -r) --module virtio_net --config web-17.toml -o capture.img",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return packInitrd(stdio, o, output)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.KernelModules, "kernel-modules", "", "`DIR` of the capture kernel's modules, /lib/modules/VERSION")
	flags.StringArrayVar(&o.Modules, "module", nil, "kernel module to load, `NAME` or \"NAME PARAMETERS\"; repeat it for more")
	flags.StringVar(&o.Config, "config", "", "configuration `FILE` of the capture side")
	flags.StringVarP(&output, "output", "o", "", "`FILE` to write")
	flags.StringVar(&o.Compression, "compress", "gzip", "gzip, zstd or none; the kernel must be able to unpack it")
	flags.StringVar(&o.Init, "init", "", "static corehaul-send to pack as /init, for another architecture; default is this program")
	return cmd
}

func packInitrd(stdio cli.Stdio, o initrd.Options, output string) error {
	switch {
	case o.Config == "":
		return cli.WithHint(cli.Usagef("no configuration: --config is missing"), "'corehaul-send initrd --help' shows what it holds")
	case output == "":
		return cli.Usagef("no output file: -o is missing")
	case !slices.Contains(initrd.Compressions, o.Compression):
		return cli.Usagef("--compress %q is none of %s", o.Compression, strings.Join(initrd.Compressions, ", "))
	}
	if o.Init == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("this program: %w", err)
		}
		o.Init = self
	}
	o.CheckKeys = checkKeys
	rep, err := initrd.Create(output, o)
	if err != nil {
		return err
	}
	if err := warnOfNetwork(stdio, o, rep, output); err != nil {
		return err
	}
	return printInitrd(stdio, rep, output)
}

// warnOfNetwork tells, while somebody can still mend it, that the capture kernel will find no network.
func warnOfNetwork(stdio cli.Stdio, o initrd.Options, rep *initrd.Report, output string) error {
	if len(rep.Network) > 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: warning: %s has no driver of a network card", name, cli.Printable(filepath.Clean(output)))
	if o.KernelModules == "" {
		fmt.Fprintf(&b, ": unless its kernel has one built in, it reaches no receiver\n")
		fmt.Fprintf(&b, "hint: --kernel-modules /lib/modules/VERSION --module NAME packs one\n")
	} else {
		fmt.Fprintf(&b, " and its kernel has none built in: it reaches no receiver\n")
		fmt.Fprintf(&b, "hint: pack the card's driver with --module NAME, or with modules in %s\n", cli.Printable(o.Config))
	}
	fmt.Fprintf(&b, "hint: 'readlink /sys/class/net/*/device/driver/module', on the machine that may crash, ends with its name\n")
	if here := initrd.CardModules("/sys"); len(here) > 0 {
		fmt.Fprintf(&b, "hint: for the cards of the machine that this runs on: --module %s\n", cli.Printable(strings.Join(here, " --module ")))
	}
	_, err := io.WriteString(stdio.Err, b.String())
	return err
}

func printInitrd(stdio cli.Stdio, rep *initrd.Report, output string) error {
	for _, m := range rep.Builtin {
		if _, err := fmt.Fprintf(stdio.Err, "%s: %s is built into the kernel\n", name, cli.Printable(m)); err != nil {
			return err
		}
	}
	for _, m := range rep.NoFirmware {
		if _, err := fmt.Fprintf(stdio.Err, "%s: warning: /lib/firmware has none of the firmware that %s may ask for: some cards do not work without it\n", name, cli.Printable(m)); err != nil {
			return err
		}
	}
	t := cli.NewTable(stdio.Out)
	for _, m := range rep.Modules {
		t.Row("module", m.Name, m.Params)
	}
	if rep.Firmware > 0 {
		t.Row("firmware", cli.Bytes(count(rep.Firmware)), "")
	}
	t.Row("file", filepath.Clean(output), fmt.Sprintf("%s, unpacked %s", cli.Bytes(count(rep.Packed)), cli.Bytes(count(rep.Unpacked))))
	t.Row("sends to", strings.Join(rep.To, ", "))
	return t.Flush()
}

func count(n int64) uint64 { return uint64(max(n, 0)) }
