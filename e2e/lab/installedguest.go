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
	// Name is the host's name, collector or web-17. The collector has to be the first of its network, because it gives
	// an address and names to the other.
	Name string
	// Network is the path of a socket that two guests share. If it is empty, the guest has QEMU's user networking, and has to ask
	// that for an address.
	Network string
	// Dir has the files of the guest's InstalledDir. Changes by the guest are lost when it ends.
	Dir string
	// SecondCard is the MAC address of a second network card in the same network. QEMU plugs it in when the guest has booted. Empty
	// means that there is none.
	SecondCard string
	// OnLine is called with each line of the console, in order, from one goroutine.
	OnLine func(line string)
}

// An Installed is a running guest: Debian bookworm with systemd, on a disk of its own, and with 256 MiB reserved for a
// capture kernel. Run may be called from one goroutine at a time.
type Installed struct {
	m     *machine
	shell net.Conn
	lines *bufio.Reader
	work  string
	stop  context.CancelFunc
	done  chan struct{}
	err   error // of QEMU, set when done is closed
}

// StartInstalled starts a guest that has booted, and returns when its shell answers. The guest ends with ctx or Stop.
func StartInstalled(ctx context.Context, opts InstalledOptions) (*Installed, error) {
	state, k, err := installedState(ctx)
	if err != nil {
		return nil, err
	}
	work, err := tempDir("installed")
	if err != nil {
		return nil, err
	}
	root, dirDisk := disk{serial: "root", path: filepath.Join(work, "root.qcow2"), overlay: true}, filepath.Join(work, "dir.ext4")
	err = makeExt4(ctx, dirDisk, opts.Dir, installedDirSize)
	if err == nil {
		err = makeOverlay(ctx, root.path, state.path(opts.Name+".ext4"))
	}
	if err != nil {
		_ = os.RemoveAll(work)
		return nil, err
	}
	m := installedMachine(k, opts, work, state.path(stateInitrd), root, disk{serial: "dir", path: dirDisk})
	// Without somebody at the other end of its shell, the guest would see an end of file.
	m.backends = append(m.shellBackend("on"), "-incoming", "exec:cat "+state.path(opts.Name+".migration"))
	if opts.SecondCard != "" {
		m.onHub()
	}
	g := startInstalled(ctx, m)
	err = g.connect(ctx, m.shellPath())
	if err == nil {
		_, _, err = g.Run(fmt.Sprintf("date -s @%d", time.Now().Unix()))
	}
	if err == nil && opts.SecondCard != "" {
		err = m.qmp("device_add", map[string]any{"driver": "virtio-net-pci", "romfile": "", "netdev": secondNetID, "mac": opts.SecondCard, "id": secondNetID})
	}
	if err == nil {
		_, err = fmt.Fprintf(g.shell, "mount -t ext4 /dev/vdb %[1]s; cd %[1]s\n", InstalledDir)
	}
	if err != nil {
		return nil, g.failed(err, opts.Name)
	}
	return g, nil
}

// secondNetID is QEMU's name for the place of a second card at the hub.
const secondNetID = "n1"

// onHub puts a hub between the machine's network and its card, with a place for a second one. What a card is connected to is no part of
// a saved state.
func (m *machine) onHub() {
	cable := m.netdev
	m.netdev = "hubport,hubid=1"
	m.backends = append(m.backends, "-netdev", cable+",id=cable", "-netdev", "hubport,hubid=1,id=trunk,netdev=cable", "-netdev", "hubport,hubid=1,id="+secondNetID)
}

// startInstalled starts QEMU. The guest's work directory goes with it.
func startInstalled(ctx context.Context, m *machine) *Installed {
	g := &Installed{}
	g.start(ctx, m)
	return g
}

func (g *Installed) start(ctx context.Context, m *machine) {
	ctx, stop := context.WithCancel(ctx)
	g.m, g.work, g.stop, g.done = m, m.dir, stop, make(chan struct{})
	go func() {
		defer close(g.done)
		g.err = m.run(ctx)
	}()
}

// failed ends the guest.
func (g *Installed) failed(err error, name string) error {
	console, _ := os.ReadFile(filepath.Join(g.work, "console.log"))
	g.Stop()
	return fmt.Errorf("%w: %s: %w; console ends:\n%s", ErrGuest, name, err, tail(string(console), 15))
}

func (m *machine) shellPath() string { return filepath.Join(m.dir, "shell") }

// shellBackend returns the arguments of QEMU for the host's end of the shell. wait is "on" or "off": whether QEMU waits for
// somebody there before it lets the guest go on.
func (m *machine) shellBackend(wait string) []string {
	return []string{"-chardev", "socket,id=shell,server=on,wait=" + wait + ",path=" + m.shellPath()}
}

// installedMachine describes the machine, without its shell's backend.
func installedMachine(k *Kernel, opts InstalledOptions, work, initrd string, disks ...disk) *machine {
	collector := opts.Name == "collector"
	m := &machine{
		scenario: Scenario{Kernel: k.Name, CrashkernelMiB: 256, Append: installedAppend(opts.Name)}.withDefaults(),
		kernel:   k, dir: work, initrd: initrd, onLine: opts.OnLine, disks: disks,
		mac:     choose(collector, "52:54:00:00:00:01", "52:54:00:00:00:02"),
		devices: []string{"virtio-serial-pci", "virtserialport,chardev=shell,name=lab"},
	}
	if opts.Network != "" {
		m.netdev = "stream,addr.type=unix,addr.path=" + opts.Network + ",server=" + choose(collector, "on", "off")
	}
	return m
}

// connect connects to the host's end of the guest's shell.
func (g *Installed) connect(ctx context.Context, path string) error {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			g.shell, g.lines = conn, bufio.NewReader(conn)
			return nil
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

// fails is for a command that is to fail: after "! COMMAND", which bash never takes for a failure, a script goes on whatever happens.
const fails = "fails() { if \"$@\"; then echo \"lab: this is to fail: $*\"; return 1; fi; }\n"

// Run runs a script as root in a shell of the guest, which ends at the first command that fails, and at the first "fails COMMAND" that does
// not. It returns the output, standard error included, and the exit code. Background processes go on. The error is io.EOF if the machine went down.
func (g *Installed) Run(script string) (output string, code int, err error) {
	const end = "lab-end-of-script"
	_, err = io.WriteString(g.shell, "cat > /run/lab.sh <<'"+end+"'\n"+fails+script+"\n"+end+"\n"+
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

// Restart starts the machine again, after Wait, with another kernel of the lab, of which its system has the modules. It returns when the
// machine has booted. Its disks are those of before, and InstalledDir is empty. A machine with a second card cannot be restarted.
func (g *Installed) Restart(ctx context.Context, kernel string) error {
	k, err := GetKernel(ctx, kernel)
	if err != nil {
		return err
	}
	before, err := GetKernel(ctx, installedKernel)
	if err != nil {
		return err
	}
	image, err := installedImage(ctx, before)
	if err != nil {
		return err
	}
	m := *g.m
	m.kernel, m.initrd, m.backends = k, filepath.Join(g.work, kernel+".img"), g.m.shellBackend("off")
	if err := writeInstalledInitrd(ctx, k, filepath.Join(image, "busybox"), m.initrd); err != nil {
		return err
	}
	_ = g.shell.Close() // its other end is gone
	g.stop()
	g.start(ctx, &m)
	if err := g.connect(ctx, m.shellPath()); err != nil {
		return err
	}
	_, _, err = g.until(shellReady)
	return err
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
