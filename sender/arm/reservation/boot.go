package reservation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/sender/arm/cmdline"
)

// A Boot is where the command line of the system kernel is configured.
type Boot struct {
	// Loader names it for people: "GRUB (grubby)".
	Loader string
	root   string
	// grubby and updateGRUB are the paths of the distribution's own tools, empty if it is not theirs.
	grubby, updateGRUB string
	// steps says what to do by hand, with %s for the word.
	steps []string
}

// DropIn is the file that Write makes for Debian's update-grub. It comes behind the one of kdump-tools, and the kernel takes the
// last crashkernel= that it finds.
const DropIn = "etc/default/grub.d/zz-corehaul.cfg"

// dropIn is its text. update-grub reads these files as shell scripts.
const dropIn = "# written by corehaul-send arm --write: memory for the capture kernel\n" +
	"GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT %s\"\n"

// FindBoot looks for the boot configuration of the system below root, which is / but for tests.
func FindBoot(root string) Boot {
	line, _ := plainfile.Read(filepath.Join(root, "proc/cmdline"), maxSmall) // without it, the files count
	boot := Boot{root: root}
	grubby, updateGRUB := boot.tool("grubby"), boot.tool("update-grub")
	switch {
	case len(cmdline.Values(string(line), "BOOTIF")) > 0:
		boot.Loader = "the network (PXE)"
		boot.steps = []string{"on the boot server, add %s to the line with the kernel's arguments (APPEND of pxelinux, kernel of iPXE, linux of GRUB)"}
	case grubby != "":
		boot.Loader, boot.grubby = "GRUB (grubby)", grubby
		boot.steps = []string{"grubby --update-kernel=ALL --args=%s"}
	case updateGRUB != "" && boot.has("etc/default/grub"):
		boot.Loader, boot.updateGRUB = "GRUB (update-grub)", updateGRUB
		boot.steps = []string{
			"add %s to GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, or in a file /etc/default/grub.d/NAME.cfg",
			"update-grub",
		}
	case boot.has("etc/kernel/cmdline"):
		boot.Loader = "kernel-install (systemd-boot)"
		boot.steps = append([]string{"add %s to the line in /etc/kernel/cmdline"}, boot.installSteps()...)
	case boot.tool("grub2-mkconfig") != "" && boot.has("etc/default/grub"):
		boot.Loader = "GRUB (grub2-mkconfig)"
		boot.steps = []string{"add %s to GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub", "grub2-mkconfig -o /boot/grub2/grub.cfg"}
	default:
		boot.Loader = "an unknown boot loader"
		boot.steps = []string{"add %s to the kernel's command line, where it is configured: on the boot server (PXE, iPXE), in the hypervisor, or in the boot loader"}
	}
	return boot
}

// maxTool bounds the program kernel-install, in bytes.
const maxTool = 4 << 20

// installSteps are the commands that make the entries of all kernels again. kernel-install has add-all since systemd 255.
func (b Boot) installSteps() []string {
	program, _ := plainfile.Read(b.tool("kernel-install"), maxTool) // one that cannot be read is taken for an old one
	if bytes.Contains(program, []byte("add-all")) {
		return []string{"kernel-install add-all"}
	}
	release, _ := plainfile.Read(filepath.Join(b.root, "proc/sys/kernel/osrelease"), maxSmall) // only chooses between two places
	image := "/boot/vmlinuz-$(uname -r)"
	if b.has(filepath.Join("usr/lib/modules", strings.TrimSpace(string(release)), "vmlinuz")) {
		image = "/usr/lib/modules/$(uname -r)/vmlinuz"
	}
	return []string{"kernel-install add $(uname -r) " + image, "the same for the other kernels that may be booted"}
}

// tool returns the path of a program of the system, empty if it has none.
func (b Boot) tool(name string) string {
	for _, dir := range []string{"usr/sbin", "sbin", "usr/bin"} {
		if b.has(filepath.Join(dir, name)) {
			return filepath.Join(b.root, dir, name)
		}
	}
	return ""
}

func (b Boot) has(name string) bool {
	_, err := os.Stat(filepath.Join(b.root, name))
	return err == nil
}

// Word returns the word that reserves size bytes, rounded up to whole MiB.
func Word(size uint64) string { return fmt.Sprintf("crashkernel=%dM", (size+1<<20-1)>>20) }

// Steps says what to do, in order, so that the next boot reserves size bytes.
func (b Boot) Steps(size uint64) []string {
	var list []string
	for _, s := range b.steps {
		list = append(list, strings.ReplaceAll(s, "%s", Word(size)))
	}
	return append(list, "reboot")
}

// CanWrite reports whether Write knows the tool of this system.
func (b Boot) CanWrite() bool { return b.grubby != "" || b.updateGRUB != "" }

// Write changes the boot configuration with the distribution's own tool, so that the next boot reserves size bytes. It changes
// nothing else. It fails with errors.ErrUnsupported if it knows no tool.
func (b Boot) Write(ctx context.Context, size uint64) error {
	switch {
	case b.grubby != "":
		return runTool(ctx, b.grubby, "--update-kernel=ALL", "--args="+Word(size))
	case b.updateGRUB != "":
		if err := b.writeDropIn(size); err != nil {
			return err
		}
		return runTool(ctx, b.updateGRUB)
	}
	return fmt.Errorf("the boot configuration of %s is not written by this program: %w", b.Loader, errors.ErrUnsupported)
}

func (b Boot) writeDropIn(size uint64) error {
	path := filepath.Join(b.root, DropIn)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := plainfile.CreatePending(path)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := fmt.Fprintf(f, dropIn, Word(size)); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil { // as the other files there
		return err
	}
	return f.Commit()
}

func runTool(ctx context.Context, path string, args ...string) error {
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(append([]string{path}, args...), " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
