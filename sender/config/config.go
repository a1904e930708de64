// Package config reads the configuration of corehaul-send as PID 1 of a capture kernel.
//
// The file is TOML and is read strictly: an unknown key, or a value of the wrong type or
// out of range, is an error that names file and line. The file is written long before the
// crash, when mistakes can still be corrected. The command line of the capture kernel
// overrides single settings (corehaul.NAME=VALUE, see Override). No mistake there is
// fatal: invalid words are reported and ignored.
//
// File describes the format key by key. A File is a plain value. Nothing here is safe for
// concurrent change.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/corehaul/corehaul/internal/plaintoml"
	"github.com/corehaul/corehaul/internal/timespan"
	"github.com/corehaul/corehaul/sender/localfs"
)

// Paths in the capture initramfs. Packages pid1 and initrd share them.
const (
	// Path is the configuration file inside the capture initramfs.
	Path = "/etc/corehaul/send.toml"
	// IdentityPath is the identity inside the capture initramfs, whatever path the configuration file names.
	IdentityPath = "/etc/corehaul/identity.pem"
	// SSHKeyPath and KnownHostsPath are the same for ssh:// targets.
	SSHKeyPath     = "/etc/corehaul/ssh_key"
	KnownHostsPath = "/etc/corehaul/known_hosts"
	// ModulesPath lists the kernel modules to load, in order: a line has the absolute path, and parameters after a blank.
	ModulesPath = "/etc/corehaul/modules"
	// WordsPath has words in the form of the kernel command line, which come before those. An image of kdump has it, whose command line
	// is not ours.
	WordsPath = "/etc/corehaul/words"
	// ShellPath is the shell for After.
	ShellPath = "/shell"
)

// Defaults of the keys.
const (
	DefaultLevel    = 31
	DefaultPatience = Duration(15 * time.Minute)
	DefaultProgress = Duration(5 * time.Second)
	DefaultConsole  = "/dev/console"
	DefaultStall    = Duration(2 * time.Minute)

	DefaultProgramLimit = Duration(time.Minute)
)

// Values of "watchdog" that are not durations, and the limit for auto.
const (
	WatchdogAuto  = "auto"
	WatchdogOff   = "off"
	watchdogLimit = 3 * time.Minute
	// The sender waits 45 s for a silent receiver (protocol.DefaultTimeout). That must not look like a hang.
	minWatchdog = time.Minute
)

// File is the configuration. The tags name the keys of the file.
type File struct {
	// To lists the targets, best first, in the forms of Schemes.
	To []string `toml:"to"`
	// Identity is the file that `corehaul ca issue` made, relative to the
	// configuration file, for tls:// targets. In the capture initramfs it is always IdentityPath.
	Identity string `toml:"identity"`
	// SSHKey is a private key without a passphrase and KnownHosts a file with the
	// servers' keys, for ssh:// targets. In the capture initramfs they are always SSHKeyPath
	// and KnownHostsPath.
	SSHKey     string `toml:"ssh_key"`
	KnownHosts string `toml:"known_hosts"`
	// Level is the dump level, 0 to 31.
	Level uint8 `toml:"level"`
	// Encoding is auto, snappy, zstd, lz4 or none.
	Encoding string `toml:"encoding"`
	// Collect is "all", or "log" for the log without pages.
	Collect string `toml:"collect"`
	// Deadline ends the dump early, counted from the start of PID 1. The receiver then seals what it has as a partial
	// dump. 0 means no deadline.
	Deadline Duration `toml:"deadline"`
	// Patience is how long, from the start of PID 1, the sender tries to reach a receiver without one page getting
	// through.
	Patience Duration `toml:"patience"`
	// Stall is how long a receiver that is alive may make no progress before the sender connects to another one, or
	// again. 0 means no limit.
	Stall Duration `toml:"stall"`
	// Watchdog is the use of /dev/watchdog: "auto" uses it if there is one, "off" does not. A duration of at least a minute
	// is how long there may be no progress before it resets the machine.
	Watchdog string `toml:"watchdog"`
	// After is what the machine does after the dump, or after its failure: one of Afters. With shell it starts a shell on the
	// kernel's console, and reboots when that has ended.
	After string `toml:"after"`
	// Shell is the path of the static program that is packed as that shell. Empty means the busybox of the machine that packs the
	// image, if After asks for a shell, or else none.
	Shell string `toml:"shell"`
	// Modules are the kernel modules to pack and load, each a name or a name and its parameters ("virtio_net napi_tx=0"),
	// before those on the command line of `corehaul-send initrd`.
	Modules []string `toml:"modules"`
	// Console is a device for messages besides the kernel's console.
	Console string `toml:"console"`
	// Progress is the time between two lines of progress on the console.
	Progress Duration `toml:"progress"`
	// Network configures the network.
	Network Network `toml:"network"`
	// Programs are programs of the site.
	Programs Programs `toml:"programs"`
	// Arm configures `corehaul-send arm`. In the capture kernel it has no meaning.
	Arm Arm `toml:"arm"`
}

// Network configures the network of the capture kernel; see layers.go for its parts.
type Network struct {
	// Mode is "dhcp" (IPv4 by DHCP, IPv6 by router advertisement or DHCPv6, whichever comes first), "static", or "none" if
	// something else has configured the network.
	Mode string `toml:"mode"`
	// Interface is the name or the MAC address of the interface. Empty means all that have a link.
	Interface string `toml:"interface"`
	// Address lists the static addresses, with prefix lengths.
	Address []netip.Prefix `toml:"address"`
	// Gateway lists the default routers, at most one of each address family.
	Gateway []netip.Addr `toml:"gateway"`
	// DNS lists the resolvers, in front of those that DHCP names.
	DNS []netip.Addr `toml:"dns"`
	// Hosts lists names that are not asked of resolvers, as in /etc/hosts.
	Hosts []Host `toml:"hosts"`
	// MTU is set on the interface unless it is 0.
	MTU int `toml:"mtu"`
	// Routes lists static routes beside the default ones.
	Routes []Route `toml:"routes"`
	// VLAN is the id of a VLAN (IEEE 802.1Q) on the interface, which then gets the addresses; 1 to 4094, 0 for none.
	VLAN int `toml:"vlan"`
	// Bond, unless it has no ports, takes the place of Interface.
	Bond Bond `toml:"bond"`
	// FenceKdump lists the other nodes of a cluster, HOST:PORT, which are told every ten seconds that this machine dumps, so that
	// they do not fence it.
	FenceKdump []string `toml:"fence_kdump"`
	// Unset means that the file says nothing about the way to the targets. `corehaul-send arm` then copies that of the running system.
	Unset bool `toml:"-"`
}

// Duration is a time.Duration that is written as package timespan says: "90s", "15m", "1h30m", "1d".
type Duration time.Duration

// UnmarshalText reads a duration that is not negative.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := timespan.Parse(string(b))
	*d = Duration(v)
	return err
}

// MarshalText writes d as UnmarshalText reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// String writes d as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

// Error is a mistake in a configuration file. Line counts from 1. It is 0 if the mistake belongs to no line, such as a
// missing key.
type Error struct {
	File string
	Line int
	Key  string
	Err  error
}

// Error names file and line first, as compilers do.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Key != "" {
		fmt.Fprintf(&b, ": %s", e.Key)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	return b.String()
}

// Unreadable says that a configuration file cannot be read. The file stands in the error once.
func Unreadable(file string, err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok && at.Path == file {
		err = at.Err
	}
	return &Error{File: file, Err: fmt.Errorf("the configuration cannot be read: %w", err)}
}

// Unwrap returns the mistake without its place.
func (e *Error) Unwrap() error { return e.Err }

// Default returns the configuration of an empty file.
func Default() *File {
	return &File{
		Level: DefaultLevel, Encoding: "auto", Collect: "all", After: "reboot",
		Patience: DefaultPatience, Progress: DefaultProgress, Console: DefaultConsole,
		Stall: DefaultStall, Watchdog: WatchdogAuto, Programs: Programs{Limit: DefaultProgramLimit},
		Network: Network{Mode: "dhcp"},
	}
}

// Parse reads and checks the text of a configuration file with a name. Errors are of type *Error.
func Parse(name string, data []byte) (*File, error) {
	f := Default()
	f.Network.Mode = ""
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(f); err != nil {
		return nil, decodeError(name, err)
	}
	f.Network.setDefaults()
	if key, err := f.check(); err != nil {
		return nil, &Error{File: name, Line: lineOf(data, key), Key: key, Err: err}
	}
	return f, nil
}

// decodeError turns the errors of the TOML library into ours.
func decodeError(name string, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		first := strict.Errors[0]
		line, _ := first.Position()
		return &Error{File: name, Line: line, Key: strings.Join(first.Key(), "."), Err: errors.New("unknown key")}
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, _ := decode.Position()
		return &Error{File: name, Line: line, Key: strings.Join(decode.Key(), "."), Err: errors.New(plaintoml.Text(decode))}
	}
	return &Error{File: name, Err: err}
}

// lineOf finds the line that sets key, for error messages. It returns 0 if there is none.
func lineOf(data []byte, key string) int {
	table := ""
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "["); ok {
			name, _, _ := strings.Cut(rest, "]")
			table = strings.TrimSpace(name) + "."
			continue
		}
		name, _, ok := strings.Cut(line, "=")
		if ok && table+strings.TrimSpace(name) == key {
			return i + 1
		}
	}
	return 0
}

// Encodings are the values of "encoding".
var Encodings = []string{"auto", "snappy", "zstd", "lz4", "none"}

// Afters are the values of "after".
var Afters = []string{"reboot", "poweroff", "halt", "shell"}

// check returns the first key with an invalid value, and why it is invalid.
func (f *File) check() (string, error) {
	if f.Level > 31 {
		return "level", fmt.Errorf("dump level %d is not between 0 and 31", f.Level)
	}
	for _, c := range []struct {
		key, value string
		allowed    []string
	}{
		{"encoding", f.Encoding, Encodings},
		{"collect", f.Collect, []string{"all", "log"}},
		{"after", f.After, Afters},
		{"network.mode", f.Network.Mode, []string{"dhcp", "static", "none"}},
	} {
		if !slices.Contains(c.allowed, c.value) {
			return c.key, fmt.Errorf("%q is none of %s", c.value, strings.Join(c.allowed, ", "))
		}
	}
	for _, to := range f.To {
		if err := CheckTarget(to); err != nil {
			return "to", err
		}
	}
	if err := checkWatchdog(f.Watchdog); err != nil {
		return "watchdog", err
	}
	if f.Shell != "" && !isCleanPath(f.Shell) {
		return "shell", fmt.Errorf("%q is no absolute path: write \"/bin/busybox\", say", f.Shell)
	}
	if err := f.Arm.check(); err != nil {
		return "arm.sysctl", err
	}
	if key, err := f.Programs.check(); err != nil {
		return key, err
	}
	return f.Network.check()
}

func checkWatchdog(value string) error {
	if value == WatchdogAuto || value == WatchdogOff {
		return nil
	}
	var d Duration
	if err := d.UnmarshalText([]byte(value)); err != nil {
		return fmt.Errorf("%q is neither auto nor off nor a duration (write 5m)", value)
	}
	if time.Duration(d) < minWatchdog {
		return fmt.Errorf("%v is less than %v, and the sender waits nearly that long for a silent receiver", d, minWatchdog)
	}
	return nil
}

// WatchdogLimit returns how long there may be no progress before the watchdog resets the machine. 0 means that the watchdog is
// not used.
func (f *File) WatchdogLimit() time.Duration {
	var d Duration
	switch {
	case f.Watchdog == WatchdogOff:
		return 0
	case d.UnmarshalText([]byte(f.Watchdog)) == nil:
		return time.Duration(d)
	}
	return watchdogLimit
}

func (n *Network) check() (string, error) {
	if n.MTU != 0 && (n.MTU < 576 || n.MTU > 65535) {
		return "network.mtu", fmt.Errorf("%d is not between 576 and 65535", n.MTU)
	}
	if key, err := n.checkLayers(); err != nil {
		return key, err
	}
	if n.Mode == "static" && len(n.Address) == 0 {
		return "network.address", errors.New("needed when network.mode is static")
	}
	if n.Mode != "static" && len(n.Address) > 0 {
		return "network.address", fmt.Errorf("set, but network.mode is %q", n.Mode)
	}
	var v4, v6 int
	for _, g := range n.Gateway {
		if g.Is4() {
			v4++
		} else {
			v6++
		}
	}
	if v4 > 1 || v6 > 1 {
		return "network.gateway", errors.New("more than one of an address family")
	}
	return "", nil
}

// CheckCapture returns what a file lacks for a capture initramfs, which needs targets and the keys for them.
func (f *File) CheckCapture() error {
	if len(f.To) == 0 {
		return errors.New(`no receiver: set to = ["tls://HOST:PORT"], ["ssh://USER@HOST"], ["nfs://HOST/EXPORT"] or ["file:///PATH?fs=UUID=..."]`)
	}
	for _, to := range f.To {
		if t, err := LocalTarget(to); err == nil && t.FS.IsZero() {
			return fmt.Errorf("%s: a capture kernel has no file system mounted; name it, %s", to, localfs.Form)
		}
		if k := f.Keys().Missing(to); k != nil {
			return fmt.Errorf(`no %s for %s: set %s = "FILE" (%s)`, k.What, to, k.Name, k.MadeBy)
		}
	}
	return nil
}

// Keys returns the files that targets need.
func (f *File) Keys() Keys { return Keys{f.Identity, f.SSHKey, f.KnownHosts} }
