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
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/initrd"
)

func newInitrd(stdio cli.Stdio) *cobra.Command {
	var o initrd.Options
	var output string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "initrd --config FILE -o FILE [flags]", Short: "Build the initramfs of a capture kernel",
		Long: `Packs an initramfs of this program as /init, the kernel modules with their dependencies, the
drivers of their bus, their firmware, the configuration, and the keys that the configuration
names. crashkernel=256M on the command line of the running kernel reserves memory for it. Load
it with

  kexec -p KERNEL --initrd=FILE --append="console=ttyS0 nr_cpus=1 irqpoll reset_devices panic=10"

The configuration (TOML) has these keys. Only to, and the keys for its targets, are required:

  to = ["tls://HOST:PORT", "ssh://USER@HOST[:PORT][/PATH]", "nfs://HOST[:PORT]/EXPORT/PATH",
        "file:///PATH?fs=UUID=...", ...]
  identity = "FILE"             for tls://, made by 'corehaul ca issue'
  ssh_key = "FILE"              for ssh://, a private key without a passphrase
  known_hosts = "FILE"          for ssh://, the servers' keys as ssh-keyscan writes them
  level = 31                    encoding = "auto"        collect = "all" | "log"
  deadline = "30m"              patience = "15m"         stall = "2m"
  watchdog = "auto" | "off" | "3m"
  after = "reboot" | "poweroff" | "halt" | "shell"       shell = "/bin/busybox"
  modules = ["NAME PARAMS"]     console = "/dev/ttyS1"   progress = "5s"
  [network]
  mode = "dhcp" | "static" | "none"     interface = "eth0" or a MAC address
  address = ["192.0.2.7/24"]            gateway = ["192.0.2.1"]
  dns = ["192.0.2.53"]                  mtu = 1500
  routes = ["10.0.0.0/8 via 192.0.2.2"] vlan = 7
  hosts = ["192.0.2.9 NAME"]            as in /etc/hosts, before dns
  fence_kdump = ["NODE:7410"]           tells a cluster's nodes that this machine dumps
  [network.bond]
  mode = "active-backup" | "802.3ad" | ...    ports = [names or MAC addresses]
  [programs]
  pre = ["/usr/local/bin/NAME"]         run before the network comes up
  post = ["/usr/local/bin/NAME"]        run after the dump
  limit = "1m"                          then each is killed; no failure costs the dump

file:///PATH?fs=UUID=... is a directory of an ext4, XFS or Btrfs file system on a plain disk or
partition, named by UUID=, LABEL= or /dev/NAME. PATH begins at the root of that file system. If
this machine has it, its drivers are packed.

The program tries the receivers of to in this order. It skips a receiver that fails or refuses,
and tries it again later until patience is over. A receiver that has a part of the dump goes
first. If /dev/watchdog exists, or a module creates it, it resets the machine after the time
watchdog (auto: 3m) without progress.

On the kernel command line, corehaul.KEY=VALUE overrides to, level, encoding, collect,
deadline, patience, stall, watchdog, after, console, progress, network (the mode), interface,
address, gateway, routes, dns, mtu, vlan, bond (the mode), ports and fence_kdump. Commas
separate the items of a list.

The file contains the secret keys of the host. Its mode is 0600.`,
		Example: "  corehaul-send initrd --kernel-modules /lib/modules/$(uname -r) --module virtio_net --config web-17.toml -o capture.img",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return packInitrd(stdio, o, output, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.KernelModules, "kernel-modules", "", "`DIR` of the capture kernel's modules, /lib/modules/VERSION")
	flags.StringArrayVar(&o.Modules, "module", nil, "kernel module to load, `NAME` or \"NAME PARAMETERS\"; may be repeated")
	flags.StringVar(&o.Config, "config", "", "configuration `FILE` of the capture side")
	flags.StringVarP(&output, "output", "o", "", "`FILE` to write")
	flags.BoolVar(&asJSON, "json", false, "print one JSON document")
	flags.StringVar(&o.Compression, "compress", "gzip", "gzip, zstd or none; the capture kernel must support it")
	cli.CompleteWords(cmd, "compress", initrd.Compressions...)
	flags.StringVar(&o.Init, "init", "", "static corehaul-send for /init, for another architecture (default: this program)")
	cli.CompleteFlag(cmd, "module", func(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return modulesIn(o.KernelModules, prefix), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func packInitrd(stdio cli.Stdio, o initrd.Options, output string, asJSON bool) error {
	switch {
	case o.Config == "":
		return cli.WithHint(cli.Usagef("no configuration: --config is missing"), "'corehaul-send initrd --help' shows its keys")
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
	if slices.ContainsFunc(rep.To, config.NeedsNetwork) {
		if err := warnOfNetwork(stdio, o, rep, output); err != nil {
			return err
		}
	}
	if err := warnOfDisks(stdio, rep, output); err != nil {
		return err
	}
	return say(stdio, asJSON, describePacked(rep, output), func() error { return printInitrd(stdio, rep, output) })
}

// warnOfNetwork warns that the capture kernel will find no network, while there is time to correct it.
func warnOfNetwork(stdio cli.Stdio, o initrd.Options, rep *initrd.Report, output string) error {
	if len(rep.Network) > 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: warning: %s has no driver of a network card", name, cli.Printable(filepath.Clean(output)))
	if o.KernelModules == "" {
		fmt.Fprintf(&b, ": it reaches a receiver only if the capture kernel has a built-in driver\n")
		fmt.Fprintf(&b, "hint: --kernel-modules /lib/modules/VERSION --module NAME packs one\n")
	} else {
		fmt.Fprintf(&b, " and the capture kernel has no built-in driver: it reaches no receiver\n")
		fmt.Fprintf(&b, "hint: pack the card's driver with --module NAME, or with modules in %s\n", cli.Printable(o.Config))
	}
	fmt.Fprintf(&b, "hint: on the machine that may crash, 'readlink /sys/class/net/*/device/driver/module' prints a path that ends with NAME\n")
	if here := initrd.CardModules("/sys"); len(here) > 0 {
		fmt.Fprintf(&b, "hint: the cards of this machine need --module %s\n", cli.Printable(strings.Join(here, " --module ")))
	}
	_, err := io.WriteString(stdio.Err, b.String())
	return err
}

// warnOfDisks warns of file systems that the capture kernel may not be able to mount.
func warnOfDisks(stdio cli.Stdio, rep *initrd.Report, output string) error {
	for _, d := range rep.Disks {
		spec := cli.Printable(d.Spec.String())
		var b strings.Builder
		switch {
		case d.NotFound != nil && len(rep.Mountable) == 0:
			fmt.Fprintf(&b, "%s: warning: %s has no driver of a file system for %s\n", name, cli.Printable(filepath.Clean(output)), spec)
		case d.NotFound != nil:
			fmt.Fprintf(&b, "%s: note: this machine has no %s; the image can mount %s\n", name, spec, strings.Join(rep.Mountable, ", "))
		case !slices.Contains(rep.Mountable, d.Type):
			fmt.Fprintf(&b, "%s: warning: %s is %s, and the image has no driver for it\n", name, spec, d.Type)
			fmt.Fprintf(&b, "hint: --kernel-modules /lib/modules/VERSION packs it, unless it is built into the kernel\n")
		}
		if d.NotFound != nil {
			fmt.Fprintf(&b, "%s: %s\n", name, cli.Printable(d.NotFound.Error()))
			fmt.Fprintf(&b, "hint: run this as root on the machine itself, which finds the drivers, or name those of file system and disk: --module ext4 --module NAME\n")
		}
		for _, m := range d.Missing {
			fmt.Fprintf(&b, "%s: warning: %s of this machine needs the module %s, which the directory of kernel modules does not have\n", name, cli.Printable(d.Device), cli.Printable(m))
		}
		if _, err := io.WriteString(stdio.Err, b.String()); err != nil {
			return err
		}
	}
	return nil
}

func printInitrd(stdio cli.Stdio, rep *initrd.Report, output string) error {
	for _, m := range rep.Builtin {
		if _, err := fmt.Fprintf(stdio.Err, "%s: %s is built into the kernel\n", name, cli.Printable(m)); err != nil {
			return err
		}
	}
	for _, m := range rep.NoFirmware {
		if _, err := fmt.Fprintf(stdio.Err, "%s: warning: %s may need firmware that /lib/firmware does not have: some cards do not work without it\n", name, cli.Printable(m)); err != nil {
			return err
		}
	}
	t := cli.NewTable(stdio.Out)
	for _, m := range rep.Modules {
		t.Row("module", m.Name, m.Params)
	}
	for _, d := range rep.Disks {
		if d.Device != "" {
			t.Row("disk", d.Spec.String(), d.Device+", "+d.Type)
		}
	}
	if rep.Firmware > 0 {
		t.Row("firmware", bytesize.Format(count(rep.Firmware)), "")
	}
	t.Row("file", filepath.Clean(output), fmt.Sprintf("%s, unpacked %s", bytesize.Format(count(rep.Packed)), bytesize.Format(count(rep.Unpacked))))
	t.Row("sends to", strings.Join(rep.To, ", "))
	return t.Flush()
}

func count(n int64) uint64 { return uint64(max(n, 0)) }

// modulesIn lists the kernel modules of a directory whose names begin with prefix; without a directory those of the running kernel.
func modulesIn(dir, prefix string) (names []string) {
	if dir == "" {
		release, err := os.ReadFile("/proc/sys/kernel/osrelease")
		if err != nil {
			return nil
		}
		dir = filepath.Join("/lib/modules", strings.TrimSpace(string(release)))
	}
	text, err := plainfile.Read(filepath.Join(dir, "modules.dep"), maxModulesDep)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		file, _, _ := strings.Cut(line, ":")
		name, _, _ := strings.Cut(filepath.Base(file), ".ko")
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

// maxModulesDep is more than any distribution's modules.dep has: those of Debian have 1 MB.
const maxModulesDep = 16 << 20
