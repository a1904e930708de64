package cmdline

import (
	"slices"
	"strings"
	"testing"
)

// lines are what /proc/cmdline has on installed systems, and what becomes of it.
var lines = []struct{ name, running, want string }{
	{
		"Debian, GRUB",
		"BOOT_IMAGE=/boot/vmlinuz-6.1.0-40-amd64 root=UUID=3c1d3d2e-7a40-4f0e-9d43-0c3e3d0fd7c5 ro console=tty0 console=ttyS0,115200 crashkernel=256M quiet\n",
		"console=tty0 console=ttyS0,115200",
	},
	{
		"Red Hat, GRUB with BLS",
		"BOOT_IMAGE=(hd0,gpt2)/vmlinuz-5.14.0-427.13.1.el9_4.x86_64 root=/dev/mapper/rhel-root ro crashkernel=1G-4G:192M,4G-64G:256M,64G-:512M " +
			"resume=/dev/mapper/rhel-swap rd.lvm.lv=rhel/root rd.lvm.lv=rhel/swap rhgb quiet intel_iommu=on default_hugepagesz=1G hugepagesz=1G hugepages=64",
		"rhgb intel_iommu=on",
	},
	{
		"systemd-boot",
		`initrd=\4f7c\6.12.41+deb13-amd64\initrd.img-6.12.41+deb13-amd64 root=PARTUUID=9f1b rw systemd.machine_id=4f7c net.ifnames=0`,
		"net.ifnames=0",
	},
	{
		"pxelinux",
		"BOOT_IMAGE=vmlinuz initrd=initrd.img ip=dhcp BOOTIF=01-52-54-00-12-34-56 console=ttyS1 log-buf-len=64M isolcpus=2-63 -- single",
		"ip=dhcp console=ttyS1",
	},
	{
		"quotes", `dyndbg="file drivers/usb/* +p" "a b=c d" console="ttyS0" mem="4G"`,
		`dyndbg="file drivers/usb/* +p" "a b=c d" console="ttyS0"`,
	},
	{"nothing", "\n", ""},
	{"a quote that does not end", `console=ttyS0 x="y quiet`, `console=ttyS0 x="y quiet`},
}

func TestCapture(t *testing.T) {
	for _, tc := range lines {
		t.Run(tc.name, func(t *testing.T) {
			want := strings.TrimSpace(tc.want + " " + strings.Join(Add, " "))
			if got := Capture(tc.running, Remove, Add); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestCaptureAddsOnce(t *testing.T) {
	got := Capture("console=tty0 nr-cpus=8 keep=1 panic=1", nil, []string{"console=ttyS0", "nr_cpus=1", "panic=10"})
	if want := "console=tty0 keep=1 console=ttyS0 nr_cpus=1 panic=10"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestValues(t *testing.T) {
	got := Values(`crashkernel=1G,high a "crashkernel=64M,low" crashkernel -- crashkernel=1`, "crashkernel")
	if want := []string{"1G,high", "64M,low"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The words that stay are those of the running kernel, in their order, and what is removed has gone.
func FuzzCapture(f *testing.F) {
	for _, tc := range lines {
		f.Add(tc.running, "quiet")
	}
	f.Fuzz(func(t *testing.T, running, remove string) {
		remove = strings.Trim(remove, "*")
		var want []string
		for _, w := range Words(running) {
			if Name(w) != Name(remove) {
				want = append(want, w)
			}
		}
		got := Capture(running, []string{remove}, nil)
		if got != strings.Join(want, " ") {
			t.Fatalf("%q without %q: got %q, want %q", running, remove, got, want)
		}
	})
}
