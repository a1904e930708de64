package reservation

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// record is a tool that notes how it was called.
const record = "#!/bin/sh\necho \"$0 $*\" > \"$(dirname \"$0\")/called\"\n"

func TestBoot(t *testing.T) {
	for _, tc := range []struct {
		name, loader string
		files        map[string]string
		step, called string
	}{
		{"Debian", "GRUB (update-grub)", map[string]string{"usr/sbin/update-grub": record, "etc/default/grub": ""}, "GRUB_CMDLINE_LINUX_DEFAULT in", "update-grub "},
		{"Red Hat", "GRUB (grubby)", map[string]string{"usr/sbin/grubby": record, "etc/default/grub": ""}, "grubby --update-kernel=ALL --args=crashkernel=300M", "grubby --update-kernel=ALL --args=crashkernel=300M"},
		{"SUSE", "GRUB (grub2-mkconfig)", map[string]string{"usr/sbin/grub2-mkconfig": record, "etc/default/grub": ""}, "grub2-mkconfig -o", ""},
		{"systemd-boot", "kernel-install (systemd-boot)", map[string]string{"etc/kernel/cmdline": "rw"}, "add crashkernel=300M to the line in /etc/kernel/cmdline", ""},
		{
			"systemd-boot with add-all", "kernel-install (systemd-boot)",
			map[string]string{"etc/kernel/cmdline": "rw", "usr/bin/kernel-install": "\x7fELF\x00add\x00add-all\x00remove\x00"},
			"\nkernel-install add-all\n", "",
		},
		{
			"systemd-boot without add-all", "kernel-install (systemd-boot)",
			map[string]string{"etc/kernel/cmdline": "rw", "usr/bin/kernel-install": "#!/bin/sh\n"},
			"\nkernel-install add $(uname -r) /boot/vmlinuz-$(uname -r)\n", "",
		},
		{
			"systemd-boot, kernels beside their modules", "kernel-install (systemd-boot)",
			map[string]string{"etc/kernel/cmdline": "rw", "proc/sys/kernel/osrelease": "6.1.0-1\n", "usr/lib/modules/6.1.0-1/vmlinuz": ""},
			"\nkernel-install add $(uname -r) /usr/lib/modules/$(uname -r)/vmlinuz\n", "",
		},
		{"pxelinux", "the network (PXE)", map[string]string{"proc/cmdline": "BOOTIF=01-52", "usr/sbin/grubby": record}, "APPEND of pxelinux", ""},
		{"nothing known", "an unknown boot loader", nil, "add crashkernel=300M to the kernel's command line", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := tree(t, tc.files)
			b := FindBoot(root)
			steps := strings.Join(b.Steps(300<<20-1), "\n")
			if b.Loader != tc.loader || !strings.Contains(steps, tc.step) || !strings.HasSuffix(steps, "\nreboot") {
				t.Errorf("got %s with\n%s", b.Loader, steps)
			}
			if b.CanWrite() != (tc.called != "") {
				t.Errorf("CanWrite is %t", b.CanWrite())
			}
			before := list(t, root)
			err := b.Write(t.Context(), 300<<20)
			if tc.called == "" {
				if d := cmp.Diff(before, list(t, root)); !errors.Is(err, errors.ErrUnsupported) || d != "" {
					t.Errorf("got %v, want unsupported; changed\n%s", err, d)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			called, err := os.ReadFile(filepath.Join(root, "usr/sbin/called"))
			if err != nil || !strings.HasSuffix(strings.TrimSuffix(string(called), "\n"), "/"+tc.called) {
				t.Errorf("called %q, %v, want %q", called, err, tc.called)
			}
		})
	}
}

// The drop-in adds the word to what other files have set, as the shell reads it.
func TestDropIn(t *testing.T) {
	root := tree(t, map[string]string{"usr/sbin/update-grub": "#!/bin/sh\n" +
		"GRUB_CMDLINE_LINUX_DEFAULT=quiet\nfor f in \"$(dirname \"$0\")\"/../../etc/default/grub.d/*.cfg; do . \"$f\"; done\n" +
		"echo \"$GRUB_CMDLINE_LINUX_DEFAULT\" > \"$(dirname \"$0\")/line\"\n", "etc/default/grub": "", "etc/default/grub.d/kdump-tools.cfg": "GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=2G-:128M\"\n"})
	for range 2 { // the second time writes the same
		if err := FindBoot(root).Write(t.Context(), 256<<20); err != nil {
			t.Fatal(err)
		}
	}
	line, err := os.ReadFile(filepath.Join(root, "usr/sbin/line"))
	if err != nil || string(line) != "quiet crashkernel=2G-:128M crashkernel=256M\n" {
		t.Errorf("got %q, %v", line, err)
	}
}

// A tool that fails is an error with what it said.
func TestWriteFails(t *testing.T) {
	root := tree(t, map[string]string{"sbin/grubby": "#!/bin/sh\necho no room on /boot >&2\nexit 1\n"})
	if err := FindBoot(root).Write(t.Context(), 1<<20); err == nil || !strings.Contains(err.Error(), "no room on /boot") {
		t.Errorf("got %v", err)
	}
}

// list has the paths of all files below a directory.
func list(t *testing.T, root string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
