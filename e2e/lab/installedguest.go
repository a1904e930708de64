package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Names and paths in installed guests.
const (
	// CollectorName is the name of the guest called collector in its network, and resolves to CollectorAddress.
	CollectorName    = "collector.example.net"
	CollectorAddress = "192.0.2.1"
	// InstalledDir is the working directory of Run's scripts. It has the files of InstalledOptions.Dir.
	InstalledDir = "/root/corehaul"

	shellReady = "lab: shell"
	shellExit  = "lab: exit "
)

// InstalledOptions describe a guest with an installed system.
type InstalledOptions struct {
	// Name is the host's name. The guest called collector has to be the first of its network, because it gives
	// addresses and names to the others.
	Name string
	// Network is the path of a socket that two guests share.
	Network string
	// Dir has the files of the guest's InstalledDir. Changes by the guest are lost when it ends.
	Dir string
	// OnLine is called with each line of the console, in order, from one goroutine.
	OnLine func(line string)
}

// An Installed is a running guest: Debian bookworm with systemd, on a disk of its own, and with 256 MiB reserved for a
// capture kernel. Run may be called from one goroutine at a time.
type Installed struct {
	shell net.Conn
	lines *bufio.Reader
	work  string
	stop  context.CancelFunc
	done  chan struct{}
	err   error // of QEMU, set when done is closed
}

// StartInstalled boots a guest and returns when its shell answers. The guest ends with ctx or Stop.
func StartInstalled(ctx context.Context, opts InstalledOptions) (*Installed, error) {
	k, err := GetKernel(ctx, "6.1")
	if err != nil {
		return nil, err
	}
	image, err := installedImage(ctx, k)
	if err != nil {
		return nil, err
	}
	work, err := tempDir("installed")
	if err != nil {
		return nil, err
	}
	m, err := installedMachine(ctx, k, image, work, opts)
	if err != nil {
		_ = os.RemoveAll(work)
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	g := &Installed{work: work, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(g.done)
		g.err = m.run(ctx)
	}()
	if err := g.connect(ctx, m.shellPath()); err != nil {
		console, _ := os.ReadFile(m.consolePath())
		g.Stop()
		return nil, fmt.Errorf("%w: %s: %w; console ends:\n%s", ErrGuest, opts.Name, err, tail(string(console), 15))
	}
	return g, nil
}

func (m *machine) shellPath() string { return filepath.Join(m.dir, "shell") }

// installedMachine describes the machine and its disks.
func installedMachine(ctx context.Context, k *Kernel, image, work string, opts InstalledOptions) (*machine, error) {
	collector := opts.Name == "collector"
	s := Scenario{
		Kernel: k.Name, CrashkernelMiB: 256,
		Append: "systemd.hostname=" + opts.Name + " systemd.show_status=0 quiet root=/dev/vda systemd.mask=" +
			strings.Join(installedMasked, " systemd.mask="),
	}.withDefaults()
	m := &machine{
		scenario: s, kernel: k, dir: work, initrd: filepath.Join(work, "initrd"), onLine: opts.OnLine,
		netdev: "stream,addr.type=unix,addr.path=" + opts.Network + ",server=" + choose(collector, "on", "off"),
		mac:    choose(collector, "52:54:00:00:00:01", "52:54:00:00:00:02"),
		disks: []disk{
			{serial: "root", path: filepath.Join(image, "root.ext4"), snapshot: true},
			{serial: "dir", path: filepath.Join(work, "dir.ext4")},
		},
		devices: []string{"virtio-serial-pci", "virtserialport,chardev=shell,name=lab"},
	}
	m.backends = []string{"-chardev", "socket,id=shell,server=on,wait=off,path=" + m.shellPath()}
	if err := writeInstalledInitrd(ctx, k, filepath.Join(image, "busybox"), m.initrd); err != nil {
		return nil, err
	}
	return m, makeExt4(ctx, filepath.Join(work, "dir.ext4"), opts.Dir, 1<<30)
}

// connect connects to the guest's shell, before the guest boots, and waits until the shell answers.
func (g *Installed) connect(ctx context.Context, path string) error {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			g.shell, g.lines = conn, bufio.NewReader(conn)
			break
		}
		// QEMU creates the socket soon after its start.
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		select {
		case <-g.done:
			return g.err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	_, _, err := g.until(shellReady)
	return err
}

// until reads lines up to one with word. It returns the lines before it, and the text after the word.
func (g *Installed) until(word string) (before, after string, err error) {
	var b strings.Builder
	for {
		line, err := g.lines.ReadString('\n')
		if text, rest, ok := strings.Cut(line, word); ok {
			return b.String() + text, strings.TrimSpace(rest), nil
		}
		b.WriteString(line)
		if err != nil {
			return b.String(), "", fmt.Errorf("lab: the guest's shell: %w", err)
		}
	}
}

// Run runs a script as root in a shell of the guest, which ends at the first command that fails. It returns the output,
// standard error included, and the exit code. Background processes go on. The error is io.EOF if the machine went down.
func (g *Installed) Run(script string) (output string, code int, err error) {
	const end = "lab-end-of-script"
	_, err = io.WriteString(g.shell, "cat > /run/lab.sh <<'"+end+"'\n"+script+"\n"+end+"\n"+
		"bash -e -o pipefail /run/lab.sh </dev/null; echo \""+shellExit+"$?\"\n")
	if err != nil {
		return "", 0, err
	}
	output, status, err := g.until(shellExit)
	if err != nil {
		return output, 0, err
	}
	code, err = strconv.Atoi(status)
	return output, code, err
}

// Wait waits until the machine has ended by itself, for example by a reboot.
func (g *Installed) Wait() error {
	<-g.done
	return g.err
}

// Stop kills the machine if it still runs, and removes its disks.
func (g *Installed) Stop() {
	g.stop()
	<-g.done
	if g.shell != nil {
		_ = g.shell.Close()
	}
	_ = os.RemoveAll(g.work)
}
