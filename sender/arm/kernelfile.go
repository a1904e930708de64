package arm

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/sender/arm/cmdline"
	"github.com/corehaul/corehaul/sender/arm/kexec"
)

// Limits of what is read whole.
const (
	maxKernel = 512 << 20
	maxConfig = 1 << 20
	// maxProgram is five times this program.
	maxProgram = 64 << 20
	// maxSiteProgram is that of package initrd.
	maxSiteProgram = 1 << 30
	maxSmall       = 64 << 10
)

// release returns the release of the running kernel.
func release(root string) (string, error) {
	text, err := plainfile.Read(filepath.Join(root, "proc/sys/kernel/osrelease"), maxSmall)
	return strings.TrimSpace(string(text)), err
}

// runningLine returns the command line of the running kernel.
func runningLine(root string) (string, error) {
	text, err := plainfile.Read(filepath.Join(root, "proc/cmdline"), maxSmall)
	return string(text), err
}

// A KernelError says that no file of the running kernel was found.
type KernelError struct {
	Release string
	Tried   []string
}

// Error names the files that were tried.
func (e *KernelError) Error() string {
	return fmt.Sprintf("no file of the running kernel %s: there is none of %s", e.Release, strings.Join(e.Tried, ", "))
}

// Hints says what to do.
func (e *KernelError) Hints() []string {
	return []string{"name a kernel with --kernel FILE; on a machine without a disk, let its image have /boot/vmlinuz-" + e.Release}
}

// kernelPaths lists where the file of a kernel may be: Debian and Red Hat, distributions with kernel-install, arm64 without
// a boot loader, and what the boot loader says of itself.
func kernelPaths(release, running string) []string {
	paths := []string{
		"/boot/vmlinuz-" + release, "/lib/modules/" + release + "/vmlinuz", "/usr/lib/modules/" + release + "/vmlinuz",
		"/boot/Image-" + release, "/boot/vmlinux-" + release,
	}
	for _, image := range cmdline.Values(running, "BOOT_IMAGE") {
		if strings.HasPrefix(image, "(") { // GRUB: (hd0,gpt2)/vmlinuz-...
			_, image, _ = strings.Cut(image, ")")
		}
		if clean := filepath.Clean("/" + image); clean != "/" {
			paths = append(paths, clean, "/boot"+clean)
		}
	}
	return paths
}

// findKernel opens the capture kernel: the named file, or that of the running kernel, which is below root. It returns a copy in
// memory.
func findKernel(root, named, running, line string) (Kernel, kexec.Image, *os.File, error) {
	if named != "" {
		path, err := filepath.Abs(named)
		if err != nil {
			return Kernel{}, kexec.Image{}, nil, err
		}
		return readKernel(path)
	}
	e := &KernelError{Release: running}
	for _, path := range kernelPaths(running, line) {
		k, image, f, err := readKernel(filepath.Join(root, path))
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return Kernel{}, kexec.Image{}, nil, err
		case k.Release == "" || k.Release == running:
			return k, image, f, nil
		default:
			_ = f.Close() // memory
			path += " (which is " + k.Release + ")"
		}
		e.Tried = append(e.Tried, path)
	}
	return Kernel{}, kexec.Image{}, nil, e
}

// readKernel reads a kernel.
func readKernel(path string) (Kernel, kexec.Image, *os.File, error) {
	data, err := plainfile.Read(path, maxKernel)
	if err != nil {
		return Kernel{}, kexec.Image{}, nil, fmt.Errorf("kernel: %w", err)
	}
	image := kexec.ReadImage(data)
	f, err := kexec.InMemory("kernel", func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		return Kernel{}, kexec.Image{}, nil, err
	}
	return Kernel{File: File{Path: path, SHA256: digest(data)}, Release: image.Release, Memory: image.Memory}, image, f, nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
