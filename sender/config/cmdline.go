package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// cmdlinePrefix marks our words on the kernel command line. The kernel takes words with a dot for module parameters, so it
// does not pass them to PID 1.
const cmdlinePrefix = "corehaul."

// Override applies the corehaul.NAME=VALUE words of a kernel command line to f:
//
//	corehaul.to=TARGET[,TARGET...]           corehaul.level=N       corehaul.encoding=E
//	corehaul.collect=all|log                 corehaul.deadline=D    corehaul.patience=D
//	corehaul.after=reboot|poweroff|halt|shell                       corehaul.console=DEVICE
//	corehaul.stall=D                         corehaul.progress=D    corehaul.watchdog=auto|off|D
//	corehaul.network=dhcp|static|none        corehaul.interface=I   corehaul.mtu=N
//	corehaul.address=ADDR/LEN[,...]          corehaul.gateway=A[,A] corehaul.dns=A[,A]
//	corehaul.fence_kdump=HOST:PORT[,...]     corehaul.routes="PREFIX via ADDR[,...]"
//	corehaul.hosts="ADDR NAME[,ADDR NAME...]"
//	corehaul.vlan=N                          corehaul.bond=MODE     corehaul.ports=I[,I...]
//	corehaul.image=ID                        changes nothing: `corehaul-send arm` marks the image that it loads
//
// If a word occurs more than once, the last one counts. An invalid word changes nothing and gives one warning: nobody can
// correct it after the crash, and a dump with the file's settings is better than none.
func (f *File) Override(cmdline string) (warnings []string) {
	for _, word := range splitCmdline(cmdline) {
		rest, ok := strings.CutPrefix(word, cmdlinePrefix)
		if !ok {
			continue
		}
		name, value, _ := strings.Cut(rest, "=")
		old := *f
		if err := f.override(name, value); err != nil {
			*f = old
			warnings = append(warnings, fmt.Sprintf("kernel command line: %s: %v; left out", word, err))
		}
	}
	// Valid words can still contradict each other or the file.
	if key, err := f.check(); err != nil {
		warnings = append(warnings, fmt.Sprintf("kernel command line: %s: %v", key, err))
	}
	return warnings
}

func (f *File) override(name, value string) error {
	switch name {
	case "to":
		list := strings.Split(value, ",")
		for _, to := range list {
			if err := CheckTarget(to); err != nil {
				return err
			}
		}
		f.To = list
		return nil
	case "level":
		n, err := strconv.ParseUint(value, 10, 8)
		if err != nil || n > 31 {
			return fmt.Errorf("%q is not between 0 and 31", value)
		}
		f.Level = uint8(n)
		return nil
	case "encoding":
		return oneOf(&f.Encoding, value, Encodings...)
	case "collect":
		return oneOf(&f.Collect, value, "all", "log")
	case "after":
		return oneOf(&f.After, value, Afters...)
	case "deadline":
		return f.Deadline.UnmarshalText([]byte(value))
	case "patience":
		return f.Patience.UnmarshalText([]byte(value))
	case "progress":
		return f.Progress.UnmarshalText([]byte(value))
	case "stall":
		return f.Stall.UnmarshalText([]byte(value))
	case "watchdog":
		f.Watchdog = value
		return checkWatchdog(value)
	case "console":
		f.Console = value
		return nil
	case "image": // only tells `corehaul-send status` which image is loaded
		return nil
	default:
		return f.Network.override(name, value)
	}
}

func (n *Network) override(name, value string) error {
	switch name {
	case "network":
		if err := oneOf(&n.Mode, value, "dhcp", "static", "none"); err != nil {
			return err
		}
		if value != "static" {
			n.Address, n.Routes = nil, nil
		}
		return nil
	case "interface":
		n.Interface, n.Bond = value, Bond{}
		return nil
	case "mtu":
		mtu, err := strconv.Atoi(value)
		if err != nil || mtu < 576 || mtu > 65535 {
			return fmt.Errorf("%q is not between 576 and 65535", value)
		}
		n.MTU = mtu
		return nil
	case "address":
		list, err := parseList(value, netip.ParsePrefix)
		if err == nil {
			// An address on the command line implies static.
			n.Mode, n.Address = "static", list
		}
		return err
	case "routes":
		list, err := parseList(value, func(s string) (r Route, err error) { err = r.UnmarshalText([]byte(s)); return r, err })
		if err == nil {
			n.Routes = list
		}
		return err
	case "gateway":
		list, err := parseList(value, netip.ParseAddr)
		if err == nil {
			n.Gateway = list
		}
		return err
	case "hosts":
		list, err := parseList(value, func(s string) (h Host, err error) { err = h.UnmarshalText([]byte(s)); return h, err })
		if err == nil {
			n.Hosts = list
		}
		return err
	case "dns":
		list, err := parseList(value, netip.ParseAddr)
		if err == nil {
			n.DNS = list
		}
		return err
	}
	return n.overrideLayers(name, value)
}

func oneOf(dst *string, value string, allowed ...string) error {
	for _, a := range allowed {
		if a == value {
			*dst = value
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", value, strings.Join(allowed, ", "))
}

func parseList[T any](value string, parse func(string) (T, error)) ([]T, error) {
	var list []T
	for _, s := range strings.Split(value, ",") {
		v, err := parse(s)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// splitCmdline splits at blanks outside double quotes and removes the quotes, as the kernel does.
func splitCmdline(s string) []string {
	var words []string
	var word strings.Builder
	quoted := false
	flush := func() {
		if word.Len() > 0 {
			words = append(words, word.String())
			word.Reset()
		}
	}
	for _, r := range s {
		switch {
		case r == '"':
			quoted = !quoted
		case !quoted && (r == ' ' || r == '\n' || r == '\t'):
			flush()
		default:
			word.WriteRune(r)
		}
	}
	flush()
	return words
}
