// Package config reads the configuration of the capture side: what
// corehaul-send does when the capture kernel starts it as PID 1.
//
// The file is TOML and read strictly: an unknown key, a value of the wrong type or
// out of range is an error that names file and line, because it is written long
// before the crash that it must serve, when somebody can still mend it. The
// kernel command line of the capture kernel overrides single settings
// (corehaul.NAME=VALUE, see Override); there nothing is fatal any more: what is
// not understood is reported and left out.
//
// The format is described key by key at File. A File is a plain value; nothing
// here is safe for concurrent change.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Where the capture initramfs keeps what this package describes. Sender and
// packer must agree on these, so they stand here alone.
const (
	// Path is the configuration file inside the capture initramfs.
	Path = "/etc/corehaul/send.toml"
	// IdentityPath is the identity inside the capture initramfs, whatever
	// place the file named where it was packed.
	IdentityPath = "/etc/corehaul/identity.pem"
	// SSHKeyPath and KnownHostsPath likewise.
	SSHKeyPath     = "/etc/corehaul/ssh_key"
	KnownHostsPath = "/etc/corehaul/known_hosts"
	// ModulesPath lists the kernel modules to load, in order: one line each, the
	// path below / and the parameters after it.
	ModulesPath = "/etc/corehaul/modules"
)

// Values that a file does not set.
const (
	DefaultLevel    = 31
	DefaultPatience = Duration(15 * time.Minute)
	DefaultProgress = Duration(5 * time.Second)
	DefaultConsole  = "/dev/console"
	DefaultStall    = Duration(2 * time.Minute)
)

// Values of "watchdog" that are no duration, and the limit that auto stands for.
const (
	WatchdogAuto  = "auto"
	WatchdogOff   = "off"
	watchdogLimit = 3 * time.Minute
	// A receiver that has gone silent is given up after 45 s (protocol.DefaultTimeout).
	// That must not look like a hang.
	minWatchdog = time.Minute
)

// File is the configuration of the capture side. The names in the tags are the
// keys of the file.
type File struct {
	// To lists where the dump goes, best first, as tls://HOST:PORT or
	// ssh://USER@HOST[:PORT][/PATH].
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
	// Collect is "all" or "log": the log alone and no pages.
	Collect string `toml:"collect"`
	// Deadline ends the dump early, counted from the start of PID 1; what has
	// arrived by then is sealed as a partial dump. 0 is none.
	Deadline Duration `toml:"deadline"`
	// Patience is how long, from the start of PID 1, the network and a
	// receiver are tried for without one page getting through.
	Patience Duration `toml:"patience"`
	// Stall is how long a receiver that lives may take nothing on before it is left for
	// another one, or for another connection. 0 is for ever.
	Stall Duration `toml:"stall"`
	// Watchdog says what becomes of /dev/watchdog: "auto" uses it if there is one, "off"
	// leaves it alone, and a duration, of at least a minute, is how long nothing may move
	// before it resets the machine.
	Watchdog string `toml:"watchdog"`
	// After says what becomes of the machine when the dump is over or has
	// failed: reboot, poweroff or halt.
	After string `toml:"after"`
	// Modules are the kernel modules to pack and load, each a name or a name and
	// its parameters ("virtio_net napi_tx=0"), before those named on the command line
	// of `corehaul-send initrd`.
	Modules []string `toml:"modules"`
	// Console is the device that is written to besides the kernel log's console.
	Console string `toml:"console"`
	// Progress is the time between two lines of progress on the console.
	Progress Duration `toml:"progress"`
	// Network says how the network comes up.
	Network Network `toml:"network"`
}

// Network says how the capture kernel's network comes up.
type Network struct {
	// Mode is "dhcp" (IPv4 by DHCP and IPv6 by router advertisement, whichever
	// comes first), "static", or "none" when something else has brought it up.
	Mode string `toml:"mode"`
	// Interface is the name or the MAC address of the interface; empty means
	// the first one that has a link.
	Interface string `toml:"interface"`
	// Address lists the static addresses, with prefix lengths.
	Address []netip.Prefix `toml:"address"`
	// Gateway lists the default routers, at most one of each address family.
	Gateway []netip.Addr `toml:"gateway"`
	// DNS lists the resolvers, in front of those that DHCP names.
	DNS []netip.Addr `toml:"dns"`
	// MTU is set on the interface when not 0.
	MTU int `toml:"mtu"`
}

// Duration is a time.Duration written as Go does: "90s", "15m", "1h30m".
type Duration time.Duration

// UnmarshalText reads a duration that is not negative.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no duration (write 90s, 15m or 1h30m)", b)
	}
	if v < 0 {
		return fmt.Errorf("duration %s is negative", v)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes d as UnmarshalText reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// String writes d as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

// Error is a fault in a configuration file. Line counts from 1; 0 means that the
// fault belongs to no line, such as a missing key.
type Error struct {
	File string
	Line int
	Key  string
	Err  error
}

// Error names the place first, as compilers do.
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

// Unwrap returns the fault without its place.
func (e *Error) Unwrap() error { return e.Err }

// Default returns the configuration of an empty file.
func Default() *File {
	return &File{
		Level: DefaultLevel, Encoding: "auto", Collect: "all", After: "reboot",
		Patience: DefaultPatience, Progress: DefaultProgress, Console: DefaultConsole,
		Stall: DefaultStall, Watchdog: WatchdogAuto,
		Network: Network{Mode: "dhcp"},
	}
}

// Parse reads and checks the text of a configuration; name stands for it in errors,
// which are of type *Error.
func Parse(name string, data []byte) (*File, error) {
	f := Default()
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(f); err != nil {
		return nil, decodeError(name, err)
	}
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
		text := strings.TrimPrefix(decode.Error(), "toml: ")
		return &Error{File: name, Line: line, Key: strings.Join(decode.Key(), "."), Err: errors.New(text)}
	}
	return &Error{File: name, Err: err}
}

// lineOf finds the line on which key is set, 0 when it is not. It is only used
// to point a person at the place.
func lineOf(data []byte, key string) int {
	last := key[strings.LastIndexByte(key, '.')+1:]
	if last == "" {
		return 0
	}
	for i, line := range strings.Split(string(data), "\n") {
		name, _, ok := strings.Cut(line, "=")
		if ok && strings.TrimSpace(name) == last {
			return i + 1
		}
	}
	return 0
}

// Encodings are the values that "encoding" may have.
var Encodings = []string{"auto", "snappy", "zstd", "lz4", "none"}

// check returns the first key with a value that cannot be, and why.
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
		{"after", f.After, []string{"reboot", "poweroff", "halt"}},
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

// WatchdogLimit returns how long nothing may move before the watchdog resets the machine;
// 0 when it is to be left alone.
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

// CheckCapture reports what a file lacks to be used in a capture initramfs, where the
// receivers and the keys for them must be known beforehand.
func (f *File) CheckCapture() error {
	if len(f.To) == 0 {
		return errors.New(`no receiver: set to = ["tls://HOST:PORT"] or ["ssh://USER@HOST"]`)
	}
	for _, to := range f.To {
		switch {
		case Scheme(to) == "tls" && f.Identity == "":
			return fmt.Errorf(`no identity for %s: set identity = "FILE" (made by corehaul ca issue)`, to)
		case Scheme(to) == "ssh" && f.SSHKey == "":
			return fmt.Errorf(`no key for %s: set ssh_key = "FILE" (made by ssh-keygen -N '')`, to)
		case Scheme(to) == "ssh" && f.KnownHosts == "":
			return fmt.Errorf(`no host key for %s: set known_hosts = "FILE" (made by ssh-keyscan)`, to)
		}
	}
	return nil
}
