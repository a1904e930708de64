package lab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// installedKernel is the kernel with which installed guests boot first.
const installedKernel = "6.1"

// installedNames are the guests that have booted in a state, in the order of their start.
var installedNames = []string{"collector", "web-17"}

// installedStatesVersion is part of the name of every state of installed guests.
const installedStatesVersion = 1

// installedAppend is added to the command line of an installed guest's kernel.
func installedAppend(name string) string {
	return "systemd.hostname=" + name + " systemd.show_status=0 quiet root=/dev/vda systemd.mask=" + strings.Join(installedMasked, " systemd.mask=")
}

// installedState returns a state in which the installed guests have booted, of the cache or a new one: of each the memory and
// devices, NAME.migration, and the disk, NAME.ext4. A boot takes half a minute of CPU time. Another QEMU gets a state of its own.
func installedState(ctx context.Context) (state, *Kernel, error) {
	k, err := GetKernel(ctx, installedKernel)
	if err != nil {
		return state{}, nil, err
	}
	image, err := installedImage(ctx, k)
	if err != nil {
		return state{}, nil, err
	}
	qemu, err := run(ctx, "", "qemu-system-x86_64", "--version")
	if err != nil {
		return state{}, nil, fmt.Errorf("lab: %w", err)
	}
	hash := sha256.Sum256(fmt.Appendf(nil, "%d %s %s %s", installedStatesVersion, qemu, installedInit, installedAppend("")))
	dir, err := cached(ctx, "installed-states", fmt.Sprintf("%s-%x", filepath.Base(image), hash[:6]), func(dir string) error {
		return stubbornly(ctx, dir, func() error { return saveInstalled(ctx, k, image, dir) })
	})
	return state{dir}, k, err
}

// saveInstalled boots the guests together, and saves the state of each when its shell is there.
func saveInstalled(ctx context.Context, k *Kernel, image, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, captureTimeout)
	defer cancel()
	initrd := filepath.Join(dir, stateInitrd)
	if err := writeInstalledInitrd(ctx, k, filepath.Join(image, "busybox"), initrd); err != nil {
		return err
	}
	work, err := tempDir("installed-state")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	guests := map[*Installed]*machine{}
	defer func() {
		for g := range guests {
			g.Stop()
		}
	}()
	for _, name := range installedNames {
		m, err := installedBoot(ctx, k, image, dir, work, name)
		if err != nil {
			return err
		}
		g := startInstalled(ctx, m)
		guests[g] = m
		if err := g.connect(ctx, m.shellPath()); err != nil {
			return g.failed(err, name)
		}
	}
	// All have to be there before one is gone, because they need each other to boot.
	for g := range guests {
		if _, _, err := g.until(shellReady); err != nil {
			return g.failed(err, filepath.Base(g.work))
		}
	}
	var saving errgroup.Group
	for g, m := range guests {
		saving.Go(func() error {
			if err := m.save(ctx, filepath.Join(dir, filepath.Base(m.dir)+".migration")); err != nil {
				return err
			}
			return g.Wait()
		})
	}
	return saving.Wait()
}

// installedBoot returns a machine that boots from a disk of its own in dir, and makes its work directory. It has a second disk, as
// later, but an empty one.
func installedBoot(ctx context.Context, k *Kernel, image, dir, work, name string) (*machine, error) {
	own := filepath.Join(work, name)
	if err := os.Mkdir(own, 0o755); err != nil {
		return nil, err
	}
	root := disk{serial: "root", path: filepath.Join(dir, name+".ext4")}
	if _, err := run(ctx, "", "cp", "--sparse=always", filepath.Join(image, "root.ext4"), root.path); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	empty := disk{serial: "dir", path: filepath.Join(own, "dir.ext4")}
	if err := makeSparse(empty.path, installedDirSize); err != nil {
		return nil, err
	}
	opts := InstalledOptions{Name: name, Network: filepath.Join(work, "net")}
	m := installedMachine(k, opts, own, filepath.Join(dir, stateInitrd), root, empty)
	m.backends = m.shellBackend("off")
	return m, nil
}
