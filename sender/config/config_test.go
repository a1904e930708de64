package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParse(t *testing.T) {
	got, err := Parse("send.toml", []byte(`
# a whole file
to = ["tls://collect.example:7443", "tls://[2001:db8::1]:7443"]
identity = "web1.pem"
level = 1
encoding = "zstd"
collect = "log"
deadline = "30m"
patience = "1h30m"
stall = "5m"
watchdog = "90s"
after = "poweroff"
modules = ["virtio_net napi_tx=0"]
console = "/dev/ttyS0"
progress = "10s"
shell = "/bin/busybox"

[network]
mode = "static"
address = ["192.0.2.7/24", "2001:db8::7/64"]
gateway = ["192.0.2.1", "2001:db8::1"]
dns = ["192.0.2.53"]
mtu = 9000
vlan = 7
fence_kdump = ["node1:7410", "[2001:db8::2]:7410"]
routes = ["10.0.0.0/8 via 192.0.2.2"]

[network.bond]
mode = "802.3ad"
ports = ["52:54:00:00:00:01", "eth1"]

[programs]
pre = ["/usr/local/bin/prepare"]
post = ["/bin/a", "/bin/b"]
limit = "5s"

[arm]
kernel = "/boot/vmlinuz-capture"
remove = []
add = ["nr_cpus=1"]
sysctl = ["kernel.panic_on_oops=1"]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &File{
		To:       []string{"tls://collect.example:7443", "tls://[2001:db8::1]:7443"},
		Identity: "web1.pem", Level: 1, Encoding: "zstd", Collect: "log",
		Deadline: Duration(30 * time.Minute), Patience: Duration(90 * time.Minute), Stall: Duration(5 * time.Minute), Watchdog: "90s",
		After: "poweroff", Shell: "/bin/busybox", Modules: []string{"virtio_net napi_tx=0"},
		Console: "/dev/ttyS0", Progress: Duration(10 * time.Second),
		Network: Network{
			Mode: "static", MTU: 9000, VLAN: 7, Bond: Bond{Mode: "802.3ad", Ports: []string{"52:54:00:00:00:01", "eth1"}},
			FenceKdump: []string{"node1:7410", "[2001:db8::2]:7410"},
			Routes:     []Route{{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParseAddr("192.0.2.2")}},
			Address:    []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8::7/64")},
			Gateway:    []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
			DNS:        []netip.Addr{netip.MustParseAddr("192.0.2.53")},
		},
		Programs: Programs{Pre: []string{"/usr/local/bin/prepare"}, Post: []string{"/bin/a", "/bin/b"}, Limit: Duration(5 * time.Second)},
		Arm:      Arm{Kernel: "/boot/vmlinuz-capture", Remove: []string{}, Add: []string{"nr_cpus=1"}, Sysctl: []string{"kernel.panic_on_oops=1"}},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestParseErrors(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		line       int
		key, has   string
	}{
		{"unknown key", "level = 31\nlevels = 1\n", 2, "levels", "unknown key"},
		{"unknown key in a table", "[network]\nmode = \"dhcp\"\nmut = 9000\n", 3, "network.mut", "unknown key"},
		{"wrong type", "level = \"high\"\n", 1, "level", ""},
		{"level out of range", "\nlevel = 32\n", 2, "level", "between 0 and 31"},
		{"bad duration", "deadline = \"soon\"\n", 1, "deadline", "is not a duration"},
		{"negative duration", "deadline = \"-1s\"\n", 1, "deadline", "negative"},
		{"watchdog too short", "watchdog = \"59s\"\n", 1, "watchdog", "less than 1m"},
		{"watchdog of no kind", "watchdog = \"on\"\n", 1, "watchdog", "neither auto nor off"},
		{"bad encoding", "encoding = \"gzip\"\n", 1, "encoding", "none of auto"},
		{"bad target", "to = [\"http://h:1\"]\n", 1, "to", "tls://HOST:PORT"},
		{"target without port", "to = [\"tls://h\"]\n", 1, "to", "port"},
		{"ssh without user", "to = [\"ssh://h\"]\n", 1, "to", "user or host is missing"},
		{"ssh with a password", "to = [\"ssh://u:secret@h\"]\n", 1, "to", "ssh://u@h: a password cannot be used"},
		{"ssh with a query", "to = [\"ssh://u@h?x\"]\n", 1, "to", "remove what follows"},
		{"nfs without a path", "to = [\"nfs://h\"]\n", 1, "to", "host or path is missing"},
		{"file with a host", "to = [\"file://var/crash\"]\n", 1, "to", "third slash"},
		{"file on a partition", "to = [\"file:///crash?fs=PARTUUID=12\"]\n", 1, "to", "names a partition"},
		{"nfs with a parameter of no kind", "to = [\"nfs://h/e?vers=3\"]\n", 1, "to", "unknown parameter"},
		{"port out of range", "to = [\"ssh://u@h:65536\"]\n", 1, "to", "between 1 and 65535"},
		{"static without address", "[network]\nmode = \"static\"\n", 0, "network.address", "needed"},
		{"address without static", "[network]\naddress = [\"192.0.2.1/24\"]\n", 2, "network.address", "dhcp"},
		{"address without length", "[network]\nmode = \"static\"\naddress = [\"192.0.2.1\"]\n", 3, "network.address", ""},
		{"a sysctl of no kind", "[arm]\nsysctl = [\"net.ipv4.ip_forward=1\"]\n", 2, "arm.sysctl", "none of kernel.panic_on_oops"},
		{"a sysctl without a value", "[arm]\nsysctl = [\"kernel.panic_on_oops\"]\n", 2, "arm.sysctl", "NAME=NUMBER"},
		{"vlan out of range", "[network]\nvlan = 4095\n", 2, "network.vlan", "between 1 and 4094"},
		{"bond without ports", "[network.bond]\nmode = \"802.3ad\"\n", 0, "network.bond.ports", "needed"},
		{"bond of no mode", "[network]\nmode = \"dhcp\"\n[network.bond]\nmode = \"team\"\nports = [\"eth0\"]\n", 4, "network.bond.mode", "none of active-backup"},
		{"bond and interface", "[network]\ninterface = \"eth0\"\nbond = {mode = \"802.3ad\", ports = [\"eth0\"]}\n", 2, "network.interface", "network.bond.ports"},
		{"route without static", "[network]\nroutes = [\"10.0.0.0/8 via 192.0.2.1\"]\n", 2, "network.routes", "dhcp"},
		{"route of two families", "[network]\nroutes = [\"10.0.0.0/8 via fe80::1\"]\n", 2, "network.routes", "two address families"},
		{"route without a router", "[network]\nroutes = [\"10.0.0.0/8\"]\n", 2, "network.routes", "write \"10.0.0.0/8 via"},
		{"node without a port", "[network]\nfence_kdump = [\"node1\"]\n", 2, "network.fence_kdump", "7410"},
		{"not TOML", "to = \n", 1, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("send.toml", []byte(tc.text))
			var ce *Error
			if !errors.As(err, &ce) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if ce.Line != tc.line || (tc.key != "" && ce.Key != tc.key) || !strings.Contains(ce.Error(), tc.has) {
				t.Errorf("got %v (line %d, key %q), want line %d, key %q, text %q", err, ce.Line, ce.Key, tc.line, tc.key, tc.has)
			}
		})
	}
}

// TestCheckCapture: each kind of target needs its keys, and no other.
func TestCheckCapture(t *testing.T) {
	const ssh, tls, nfs = "ssh://u@h", "tls://h:1", "nfs://h/e?uid=1"
	for _, tc := range []struct {
		file File
		has  string
	}{
		{File{}, "no receiver"},
		{File{To: []string{tls}}, "no identity for " + tls},
		{File{To: []string{tls}, SSHKey: "k", KnownHosts: "h"}, "no identity for " + tls},
		{File{To: []string{ssh}, Identity: "i"}, "no key for " + ssh},
		{File{To: []string{ssh}, SSHKey: "k"}, "no host key for " + ssh},
		{File{To: []string{tls, ssh}, Identity: "i", KnownHosts: "h"}, "no key for " + ssh},
		{File{To: []string{nfs, tls}}, "no identity for " + tls},
		{File{To: []string{nfs}}, ""},
		{File{To: []string{"file:///crash"}}, "file:///crash: a capture kernel has no file system mounted"},
		{File{To: []string{"file:///crash?fs=LABEL=x"}}, ""},
		{File{To: []string{tls}, Identity: "i"}, ""},
		{File{To: []string{ssh, ssh + ":22"}, SSHKey: "k", KnownHosts: "h"}, ""},
		{File{To: []string{ssh, tls}, Identity: "i", SSHKey: "k", KnownHosts: "h"}, ""},
	} {
		err := tc.file.CheckCapture()
		if (err == nil) != (tc.has == "") || err != nil && !strings.Contains(err.Error(), tc.has) {
			t.Errorf("%+v: got %v, want %q", tc.file, err, tc.has)
		}
	}
}

func TestOverride(t *testing.T) {
	f := Default()
	f.To = []string{"tls://old:1"}
	warnings := f.Override("console=ttyS0 corehaul.to=tls://a:1,nfs://b:2/c?mountport=3&uid=4,file:///crash?fs=LABEL=a%2Cb corehaul.level=1 " +
		"corehaul.deadline=90s corehaul.address=192.0.2.7/24 corehaul.gateway=192.0.2.1 \"corehaul.interface=my nic\" " +
		"corehaul.stall=30s corehaul.watchdog=off corehaul.watchdog=1s corehaul.after=explode corehaul.nonsense=1 corehaul.image=4f corehaul.level=77 corehaul.mtu=9000\n")
	if len(warnings) != 4 {
		t.Errorf("got %d warnings, want 4: %q", len(warnings), warnings)
	}
	want := Default()
	want.To = []string{"tls://a:1", "nfs://b:2/c?mountport=3&uid=4", "file:///crash?fs=LABEL=a%2Cb"}
	want.Level = 1
	want.Deadline = Duration(90 * time.Second)
	want.Stall, want.Watchdog = Duration(30*time.Second), WatchdogOff
	want.Network = Network{
		Mode: "static", Interface: "my nic", MTU: 9000,
		Address: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")},
		Gateway: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	}
	if d := cmp.Diff(want, f, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

// TestOverrideLayers: the interfaces of the command line take the place of those of the file.
func TestOverrideLayers(t *testing.T) {
	f := Default()
	f.Network.Interface = "eth0"
	if w := f.Override("corehaul.bond=active-backup corehaul.ports=eth1,eth2 corehaul.vlan=9 corehaul.vlan=5000"); len(w) != 1 || !strings.Contains(w[0], "5000") {
		t.Errorf("warnings %q", w)
	}
	want := Network{Mode: "dhcp", VLAN: 9, Bond: Bond{Mode: "active-backup", Ports: []string{"eth1", "eth2"}}}
	if d := cmp.Diff(want, f.Network, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if got := f.Network.Modules(); !slices.Equal(got, []string{"bonding max_bonds=0", "8021q"}) {
		t.Errorf("modules %q", got)
	}
	if w := f.Override("corehaul.interface=eth3 corehaul.vlan=0"); len(w) > 0 || len(f.Network.Modules()) > 0 || f.Network.Interface != "eth3" {
		t.Errorf("warnings %q, modules %q, interface %s", w, f.Network.Modules(), f.Network.Interface)
	}
}

// TestWords: words make the network again that they were made of.
func TestWords(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	for name, n := range map[string]Network{
		"DHCP":                 {Mode: "dhcp"},
		"none":                 {Mode: "none"},
		"DHCP on a card":       {Mode: "dhcp", Interface: "52:54:00:00:00:01"},
		"DHCP on a VLAN, bond": {Mode: "dhcp", VLAN: 7, Bond: Bond{Mode: "802.3ad", Ports: []string{"52:54:00:00:00:01", "52:54:00:00:00:02"}}},
		"static, all there is": {
			Mode: "static", VLAN: 4094, MTU: 9000, Bond: Bond{Mode: "active-backup", Ports: []string{"52:54:00:00:00:01"}},
			Address: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8::7/64")}, Gateway: addrs, DNS: addrs,
			Routes: []Route{{netip.MustParsePrefix("10.0.0.0/8"), addrs[0]}, {netip.MustParsePrefix("203.0.113.9/32"), addrs[0]}},
			Hosts:  []Host{{addrs[0], "collector"}, {addrs[1], "collector.example.net"}},
		},
	} {
		f := Default()
		words := strings.Join(n.Words(), " ")
		if w := f.Override("root=/dev/sda " + words + " quiet"); len(w) > 0 {
			t.Errorf("%s: %s: %q", name, words, w)
		}
		if d := cmp.Diff(n, f.Network, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
			t.Errorf("%s: %s: -want +got\n%s", name, words, d)
		}
	}
}

// TestUnset: whatever a file says about the way to the targets counts, and nothing is copied then.
func TestUnset(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "[network]\n": true, "[network]\nhosts = [\"192.0.2.9 collector\"]\n": true, "[network]\nfence_kdump = [\"node1:7410\"]\n": true,
		"[network]\nmode = \"dhcp\"\n": false, "[network]\ninterface = \"ens3\"\n": false, "[network]\nvlan = 7\n": false,
		"[network]\ndns = [\"192.0.2.53\"]\n": false, "[network]\nmtu = 9000\n": false,
	} {
		f, err := Parse("send.toml", []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if f.Network.Unset != want || f.Network.Mode != "dhcp" {
			t.Errorf("%q: got %+v", text, f.Network)
		}
	}
}

// TestHosts: a name may have several addresses, and letters of both cases.
func TestHosts(t *testing.T) {
	f, err := Parse("send.toml", []byte("[network]\nhosts = [\"192.0.2.9 Collector.\", \"2001:db8::9\\tcollector\", \"192.0.2.8 other\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Network.AddrsOf("collector"); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")}) {
		t.Errorf("got %v", got)
	}
	for _, text := range []string{"192.0.2.9", "collector 192.0.2.9", "192.0.2.9 a b", "192.0.2.9 a,b"} {
		if _, err := Parse("send.toml", fmt.Appendf(nil, "[network]\nhosts = [%q]\n", text)); err == nil || !strings.Contains(err.Error(), "send.toml:2") {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestOverrideContradiction(t *testing.T) {
	f := Default()
	if w := f.Override("corehaul.network=static"); len(w) != 1 || !strings.Contains(w[0], "network.address") {
		t.Errorf("got %q, want one warning about network.address", w)
	}
}

func TestWatchdogLimit(t *testing.T) {
	for value, want := range map[string]time.Duration{"auto": watchdogLimit, "off": 0, "90s": 90 * time.Second} {
		if got := (&File{Watchdog: value}).WatchdogLimit(); got != want {
			t.Errorf("%s: got %v, want %v", value, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("level = 31\n[network]\nmode=\"dhcp\"\n"), "corehaul.level=1 \"corehaul.to=tls://a:1\"")
	f.Fuzz(func(t *testing.T, data []byte, cmdline string) {
		file, err := Parse("f", data)
		if err != nil {
			if file != nil {
				t.Fatal("a file and an error")
			}
			return
		}
		file.Override(cmdline)
		if file.Level > 31 {
			t.Fatalf("level %d", file.Level)
		}
	})
}

func TestPrograms(t *testing.T) {
	f, err := Parse("send.toml", []byte("[programs]\npre = [\"/usr/bin/a b\"]\nlimit = \"5s\"\n"))
	if err != nil || len(f.Programs.Pre) != 1 || f.Programs.Limit != Duration(5*time.Second) {
		t.Errorf("got %+v, %v", f, err)
	}
	for text, has := range map[string]string{
		"pre = [\"notify\"]":   "send.toml:2: programs.pre: \"notify\" is no absolute path",
		"post = [\"/a/../b\"]": "send.toml:2: programs.post: \"/a/../b\" is no absolute path",
		"limit = \"0s\"":       "send.toml:2: programs.limit: 0 s is too short",
		"pre = [" + strings.Repeat("\"/a\",", maxPrograms+1) + "]": "17 programs, and 16 is the limit",
	} {
		if f, err := Parse("send.toml", []byte("[programs]\n"+text+"\n")); err == nil || !strings.Contains(err.Error(), has) {
			t.Errorf("%s: got %+v, %v, want %q", text, f, err, has)
		}
	}
}
