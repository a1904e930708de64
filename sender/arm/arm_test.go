package arm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/sender/arm/cmdline"
	"github.com/corehaul/corehaul/sender/arm/estimate"
	"github.com/corehaul/corehaul/sender/arm/kexec/kexectest"
	"github.com/corehaul/corehaul/sender/arm/reservation"
	"github.com/corehaul/corehaul/sender/config"
)

const (
	running = "6.1.0-57-cloud-amd64"
	iomem   = "00001000-3ffd9fff : System RAM\n  2f000000-3effffff : Crash kernel\n"
)

// machine is a running system below a directory: files with their text, and links with "-> " before where they lead.
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"sys/kernel/kexec_crash_size": "268435456\n", "sys/kernel/kexec_crash_loaded": "1\n", "proc/iomem": iomem,
		"proc/cmdline":              "BOOT_IMAGE=/boot/vmlinuz-" + running + " root=UUID=1 ro console=ttyS0 crashkernel=256M quiet\n",
		"proc/sys/kernel/osrelease": running + "\n", "proc/sys/kernel/panic_on_oops": "0\n", "proc/self/mountinfo": "",
		"boot/vmlinuz-" + running: "no header", "init": program, "etc/id.pem": "a key", "bin/tell": program,
		"etc/send.toml": "to = [\"tls://h:1\"]\nidentity = \"id.pem\"\n[programs]\npost = [\"" + root + "/bin/tell\"]\n",
		// A virtio card and its bus.
		"sys/devices/pci0000:00/0000:00:02.0/driver":                     "-> ../../../bus/pci/drivers/virtio-pci",
		"sys/devices/pci0000:00/0000:00:02.0/virtio1/driver":             "-> ../../../../bus/virtio/drivers/virtio_net",
		"sys/devices/pci0000:00/0000:00:02.0/virtio1/net/ens2/address":   "52:54:00:00:00:02\n",
		"sys/devices/pci0000:00/0000:00:02.0/virtio1/net/ens2/operstate": "up\n",
		"sys/devices/pci0000:00/0000:00:02.0/virtio1/net/ens2/device":    "-> ../..",
		"sys/bus/pci/drivers/virtio-pci/module":                          "-> ../../../../module/virtio_pci",
		"sys/bus/virtio/drivers/virtio_net/module":                       "-> ../../../../module/virtio_net",
		"sys/module/virtio_pci/initstate":                                "live",
		"sys/module/virtio_net/initstate":                                "live",
		"sys/class/net/ens2":                                             "-> ../../devices/pci0000:00/0000:00:02.0/virtio1/net/ens2",
		"lib/modules/" + running + "/modules.dep":                        "",
		"lib/modules/" + running + "/modules.builtin":                    "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/net/virtio_net.ko\n",
	} {
		put(t, root, name, text)
	}
	for name, text := range files {
		put(t, root, name, text)
	}
	return root
}

func put(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if to, ok := strings.CutPrefix(text, "-> "); ok {
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// program is the shortest ELF file of a static program: Elf64_Ehdr alone, little-endian, ET_EXEC, EM_X86_64.
var program = "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\x3e\x00\x01\x00\x00\x00" + strings.Repeat("\x00", 28) +
	"\x40\x00\x38\x00\x00\x00\x40\x00\x00\x00\x00\x00"

// prepare packs the image of a machine, and notes it as loaded.
func prepare(t *testing.T, root string) *Plan {
	t.Helper()
	return armedBy(t, root, nil)
}

func TestPrepare(t *testing.T) {
	root := machine(t, nil)
	p := prepare(t, root)
	r := p.Record
	if want := "console=ttyS0 " + strings.Join(cmdline.Add, " ") + " corehaul.image=" + r.ID; r.Cmdline != want {
		t.Errorf("command line %q, want %q", r.Cmdline, want)
	}
	if !slices.Contains(r.Modules, "virtio_pci") || !slices.Contains(r.Modules, "virtio_net") {
		t.Errorf("modules %q", r.Modules)
	}
	if r.Kernel.Path != filepath.Join(root, "boot/vmlinuz-"+running) || r.Kernel.Release != running {
		t.Errorf("kernel %+v", r.Kernel)
	}
	if len(r.Keys) != 1 || r.Keys[0] != (File{filepath.Join(root, "etc/id.pem"), digest([]byte("a key"))}) {
		t.Errorf("keys %+v", r.Keys)
	}
	if size := estimate.Of(estimate.Input{Kernel: 4 * uint64(len("no header")), Packed: r.Packed, Unpacked: r.Unpacked, Memory: 1 << 30}).Size; r.Needs != size {
		t.Errorf("needs %d, want %d: %+v", r.Needs, size, r.Parts)
	}
	got, err := readRecord(root, armedFile)
	if d := cmp.Diff(&r, got); err != nil || d != "" {
		t.Errorf("%v: the record reads otherwise: -want +got\n%s", err, d)
	}
}

// The lists of the configuration take the place of the built-in ones, and an interface gets its address.
func TestPrepareConfigured(t *testing.T) {
	root := machine(t, map[string]string{"etc/send.toml": "to = [\"tls://h:1\"]\nidentity = \"id.pem\"\n[network]\ninterface = \"ens2\"\n" +
		"[arm]\nremove = [\"quiet\"]\nadd = []\n"})
	r := prepare(t, root).Record
	want := "BOOT_IMAGE=/boot/vmlinuz-" + running + " root=UUID=1 ro console=ttyS0 crashkernel=256M corehaul.interface=52:54:00:00:00:02 corehaul.image=" + r.ID
	if r.Cmdline != want {
		t.Errorf("got  %s\nwant %s", r.Cmdline, want)
	}
}

func TestPrepareErrors(t *testing.T) {
	for _, tc := range []struct {
		name, file, text, has string
	}{
		{"no configuration", "etc/send.toml", "", "no receiver"},
		{"a key that is a directory", "etc/send.toml", "to = [\"tls://h:1\"]\nidentity = \"/\"\n", "it is a directory"},
		{"a bad configuration", "etc/send.toml", "level = 99\n", "send.toml:1: level"},
		{"a kernel that is not there", "etc/send.toml", "to = [\"nfs://h/e\"]\n[arm]\nkernel = \"/nowhere/vmlinuz\"\n", "/nowhere/vmlinuz"},
		{"an unknown module", "etc/send.toml", "to = [\"nfs://h/e\"]\nmodules = [\"nonsense\"]\n", "module nonsense"},
		{"a dynamic program", "init", "#!/bin/sh\n", "init"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := machine(t, map[string]string{tc.file: tc.text})
			p, err := Prepare(t.Context(), Options{Root: root, Config: filepath.Join(root, "etc/send.toml"), Init: filepath.Join(root, "init")})
			if p != nil || err == nil || !strings.Contains(err.Error(), tc.has) {
				t.Errorf("got %v, want %q", err, tc.has)
			}
		})
	}
}

func TestNoKernel(t *testing.T) {
	root := machine(t, nil)
	if err := os.Remove(filepath.Join(root, "boot/vmlinuz-"+running)); err != nil {
		t.Fatal(err)
	}
	_, err := Prepare(t.Context(), Options{Root: root, Config: filepath.Join(root, "etc/send.toml"), Init: filepath.Join(root, "init")})
	e, ok := errors.AsType[*KernelError](err)
	if !ok || len(e.Tried) < 5 || len(e.Hints()) == 0 {
		t.Errorf("got %v", err)
	}
}

// BOOT_IMAGE counts where the kernel has another name.
func TestKernelOfBootLoader(t *testing.T) {
	for image, path := range map[string]string{
		"(hd0,gpt2)/kernels/linux": "/boot/kernels/linux", "/linux": "/linux", "../../etc/passwd": "/etc/passwd",
	} {
		if got := kernelPaths(running, "BOOT_IMAGE="+image); !slices.Contains(got, path) {
			t.Errorf("%s: got %q, want %s", image, got, path)
		}
	}
}

func TestReserved(t *testing.T) {
	root := machine(t, map[string]string{"sys/kernel/kexec_crash_size": "0", "proc/cmdline": "quiet"})
	_, err := Arm(context.Background(), Options{Root: root})
	if e, ok := errors.AsType[*NotReservedError](err); !ok || e.Size != 256<<20 || len(e.Hints()) < 2 {
		t.Errorf("got %v", err)
	}
}

// What somebody else has loaded stays, and is not called ours.
func TestOthersImage(t *testing.T) {
	root := machine(t, map[string]string{
		"run/systemd/system/x": "", "etc/systemd/system/multi-user.target.wants/kdump-tools.service": "-> /lib/systemd/system/kdump-tools.service",
	})
	_, err := Arm(context.Background(), Options{Root: root, Config: filepath.Join(root, "etc/send.toml")})
	if e, ok := errors.AsType[*OtherError](err); !ok || !strings.Contains(e.Who, "kdump-tools") {
		t.Errorf("arm: got %v", err)
	}
	if err := Disarm(root, false); err == nil || !strings.Contains(err.Error(), "did not load") {
		t.Errorf("disarm: got %v", err)
	}
	s := look(t, root, nil)
	if s.State != NotArmed || codes(s)[0] != OthersImage {
		t.Errorf("got %+v", s)
	}
}

func TestDisarmNothing(t *testing.T) {
	root := machine(t, map[string]string{"sys/kernel/kexec_crash_loaded": "0\n", "run/corehaul-send/arming.json": "{}", "run/corehaul-send/.corehaul-X.tmp": ""})
	if err := Disarm(root, false); !errors.Is(err, ErrNotArmed) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, Dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is left: %v", err)
	}
}

func TestSetSysctls(t *testing.T) {
	root := machine(t, nil)
	if err := setSysctls(root, []string{"kernel.panic_on_oops=1"}); err != nil {
		t.Fatal(err)
	}
	if v, err := readSysctl(root, "kernel.panic_on_oops"); v != "1" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
}

func look(t *testing.T, root string, probe Probe) *Status {
	t.Helper()
	s, err := Look(t.Context(), root, nil, probe)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// codes are those of the problems.
func codes(s *Status) []Code {
	var list []Code
	for _, f := range s.Findings {
		if f.Problem {
			list = append(list, f.Code)
		}
	}
	return list
}

// staleCases are the cases of TestLook in which another Arm would load another image.
var staleCases = []string{
	"configuration changed", "configuration broken", "key changed", "program of the site changed", "driver missing", "another program", "interface gone", "sysctl", "an arm killed before it loaded",
}

// TestLookDisk: the file system of a target is gone, or its directory.
func TestLookDisk(t *testing.T) {
	superblock, err := os.ReadFile("../disk/testdata/mkfs.ext4-1.47.0")
	if err != nil {
		t.Fatal(err)
	}
	const ext4At = 1024 // bytes from the start, fs/ext4/super.c
	root := machine(t, map[string]string{
		"etc/send.toml":         "to = [\"file:///crash?fs=UUID=01234567-89ab-cdef-0123-456789abcdef\"]\n",
		"sys/devices/vda1/size": "2048\n", "sys/devices/vda1/dev": "252:1\n", "sys/class/block/vda1": "-> ../../devices/vda1",
		"dev/vda1": strings.Repeat("\x00", ext4At) + string(superblock) + strings.Repeat("\x00", 1<<20-ext4At-len(superblock)),
		"lib/modules/" + running + "/modules.builtin": "kernel/fs/ext4/ext4.ko\n",
	})
	prepare(t, root)
	if got := codes(look(t, root, nil)); len(got) > 0 {
		t.Errorf("with the disk: %q", got)
	}
	put(t, root, "dev/vda1", strings.Repeat("\x00", 1<<20)) // another mkfs, say
	if got := codes(look(t, root, nil)); !slices.Equal(got, []Code{DiskMissing}) {
		t.Errorf("without the file system: %q", got)
	}
	put(t, root, "dev/vda1", "")
	if err := os.Remove(filepath.Join(root, "sys/class/block/vda1")); err != nil {
		t.Fatal(err)
	}
	if got := codes(look(t, root, nil)); !slices.Equal(got, []Code{DiskMissing}) {
		t.Errorf("without the disk: %q", got)
	}
}

// A kernel without kexec says so, whatever the command.
func TestNoKexec(t *testing.T) {
	root := t.TempDir()
	put(t, root, "proc/sys/kernel/osrelease", running)
	_, armed := Arm(t.Context(), Options{Root: root})
	_, looked := Look(t.Context(), root, nil, nil)
	for name, err := range map[string]error{"arm": armed, "disarm": Disarm(root, false), "status": looked} {
		if !errors.Is(err, reservation.ErrNoKexec) {
			t.Errorf("%s: got %v", name, err)
		}
		if e, ok := errors.AsType[interface {
			error
			Hints() []string
		}](err); !ok || len(e.Hints()) == 0 {
			t.Errorf("%s: no hint with %v", name, err)
		}
	}
}

// Each thing that went wrong since is found, alone.
func TestLook(t *testing.T) {
	unreachable := func(context.Context, *config.File, string) error { return errors.New("no route to host") }
	for _, tc := range []struct {
		name   string
		change map[string]string
		edit   func(*Record)
		probe  Probe
		state  State
		want   []Code
	}{
		{"nothing", nil, nil, nil, Ready, nil},
		{"the receiver is gone", nil, nil, unreachable, Doubtful, []Code{NotReachable}},
		{"configuration changed", map[string]string{"etc/send.toml": "to = [\"tls://h:2\"]\nidentity = \"id.pem\"\n"}, nil, nil, Doubtful, []Code{ConfigChanged}},
		{"configuration broken", map[string]string{"etc/send.toml": "to = 1"}, nil, nil, Doubtful, []Code{ConfigChanged, ConfigGone}},
		{"key changed", map[string]string{"etc/id.pem": "another key"}, nil, nil, Doubtful, []Code{KeyChanged}},
		{"program of the site changed", map[string]string{"bin/tell": program + "newer"}, nil, nil, Doubtful, []Code{SiteChanged}},
		{"reservation shrunk", map[string]string{"sys/kernel/kexec_crash_size": "1048576"}, nil, nil, Doubtful, []Code{SmallReserved}},
		{"no reservation", map[string]string{"sys/kernel/kexec_crash_size": "0", "sys/kernel/kexec_crash_loaded": "0"}, nil, nil, NotArmed, []Code{NoReservation}},
		{"unloaded", map[string]string{"sys/kernel/kexec_crash_loaded": "0"}, nil, nil, NotArmed, []Code{Unloaded}},
		{"another kernel runs", map[string]string{"proc/sys/kernel/osrelease": "6.1.0-58-cloud-amd64"}, nil, nil, Doubtful, []Code{OtherKernel}},
		{"kernel replaced", map[string]string{"boot/vmlinuz-" + running: "newer"}, nil, nil, Ready, nil},
		{"driver missing", nil, func(r *Record) { r.Modules = []string{"virtio_pci"} }, nil, Doubtful, []Code{DriverMissing}},
		{"driver lacking", nil, func(r *Record) { r.Modules, r.Lacking = []string{"virtio_pci"}, []string{"virtio_net"} }, nil, Doubtful, []Code{DriverMissing}},
		{"another program", map[string]string{"init": program + "newer"}, nil, nil, Ready, nil},
		{"interface gone", map[string]string{"etc/send.toml": "to = [\"tls://h:1\"]\nidentity = \"id.pem\"\n[network]\ninterface = \"52:54:00:00:00:03\"\n"}, nil, nil, Doubtful, []Code{ConfigChanged, NoInterface}},
		{"kdump enabled", map[string]string{"run/systemd/system/x": "", "etc/systemd/system/multi-user.target.wants/kdump.service": ""}, nil, nil, Doubtful, []Code{OtherAtBoot}},
		{"sysctl", map[string]string{"etc/send.toml": "to = [\"tls://h:1\"]\nidentity = \"id.pem\"\n[arm]\nsysctl=[\"kernel.panic_on_oops=1\"]\n"}, nil, nil, Doubtful, []Code{ConfigChanged, SysctlDiffers}},
		{"an arm killed before it loaded", map[string]string{"run/corehaul-send/arming.json": `{"id":"B"}`}, nil, nil, Doubtful, []Code{Interrupted}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := machine(t, nil)
			r := prepare(t, root).Record
			if tc.edit != nil {
				tc.edit(&r)
			}
			if err := r.write(root, armedFile); err != nil {
				t.Fatal(err)
			}
			for name, text := range tc.change {
				put(t, root, name, text)
			}
			s := look(t, root, tc.probe)
			if d := cmp.Diff(tc.want, codes(s)); d != "" || s.State != tc.state {
				t.Errorf("state %s, want %s; problems -want +got\n%s\n%+v", s.State, tc.state, d, s.Findings)
			}
			if want := slices.Contains(staleCases, tc.name); s.Stale() != want {
				t.Errorf("stale is %t, want %t: %+v", s.Stale(), want, s.Findings)
			}
			for _, f := range s.Findings {
				if f.What == "" || f.Do == "" {
					t.Errorf("a finding that does not say all: %+v", f)
				}
			}
		})
	}
}

func TestLookFilesGone(t *testing.T) {
	for name, want := range map[string]Code{"etc/send.toml": ConfigGone, "etc/id.pem": KeyGone, "bin/tell": SiteGone} {
		root := machine(t, nil)
		prepare(t, root)
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
		if got := codes(look(t, root, nil)); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestFindLoaded: whatever was loaded, and wherever an Arm was killed, it is not called what it is not.
func TestFindLoaded(t *testing.T) {
	const base = 0x2f000000
	area := reservation.Area{Start: base, End: base + 0x2000}
	armed, arming := Record{ID: "ARMED", Mark: base + 0x100}, Record{ID: "ARMING"}
	unmarked := Record{ID: "ARMED"}
	for _, tc := range []struct {
		name           string
		armed, arming  *Record
		memory         string // "" means that the kernel does not show it
		record, unsure string
	}{
		{"nothing of ours, not shown", nil, nil, "", "", ""},
		{"nothing of ours", nil, nil, "x", "", ""},
		{"ours", &armed, nil, "corehaul.image=ARMED", "ARMED", ""},
		{"ours, which the kernel does not show", &armed, nil, "", "ARMED", ""},
		{"ours, which it has never shown", &unmarked, nil, "", "ARMED", ""},
		{"another took its place", &armed, nil, "another", "", ""},
		{"killed before the load", &armed, &arming, "corehaul.image=ARMED", "ARMED", ""},
		{"killed after the load", &armed, &arming, "corehaul.image=ARMING", "ARMING", ""},
		{"killed after the first load", nil, &arming, "corehaul.image=ARMING", "ARMING", ""},
		{"killed before the first load", nil, &arming, "another", "", "unsure"},
		{"killed, and the kernel has never shown it", &unmarked, &arming, "", "ARMED", "unsure"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := machine(t, nil)
			for name, r := range map[string]*Record{armedFile: tc.armed, armingFile: tc.arming} {
				if r == nil {
					continue
				}
				if err := r.write(root, name); err != nil {
					t.Fatal(err)
				}
			}
			if tc.memory != "" {
				memory := make([]byte, 0x2000)
				copy(memory[0x100:], tc.memory)
				kexectest.Core(t, root, map[uint64][]byte{base: memory})
			}
			l, err := findLoaded(root, []reservation.Area{area})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if l.record != nil {
				got = l.record.ID
			}
			if got != tc.record || l.unsure != (tc.unsure != "") || !l.any {
				t.Errorf("got %q, %+v", got, l)
			}
		})
	}
}
