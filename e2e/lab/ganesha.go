package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Ports of Ganesha in its network namespace.
const (
	GaneshaNFS   = 20490
	GaneshaMount = 20480
)

// Ganesha is a real NFS server (version 3) with a portmapper, in network and mount namespaces of its own: it refuses to run
// without a portmapper, and a machine has one.
type Ganesha struct {
	// Addr and MountAddr are HOST:PORT of its two services on this host. They stay through a Kill.
	Addr, MountAddr string
	dir, log        string
	holder          *exec.Cmd
	portmapper, cmd *exec.Cmd
	listeners       []net.Listener
	forwards        sync.WaitGroup
}

const ganeshaConfig = `NFS_CORE_PARAM {
	Protocols = 3; NFS_Port = %d; MNT_Port = %d;
	Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = false;
}
`

// ganeshaExport is an export. Settings that come later win.
const ganeshaExport = `EXPORT {
	Export_Id = %d; Path = %s; Pseudo = /export%d; Access_Type = %s; Squash = %s;
	SecType = sys; Protocols = 3; Transports = TCP; FSAL { Name = VFS; }
}
`

// ganeshaAddr is an address in the network namespace.
func ganeshaAddr(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// GaneshaExport is a directory that a Ganesha exports.
type GaneshaExport struct {
	Path string
	// ReadOnly and Squash limit what clients may do. Squash makes root nobody.
	ReadOnly, Squash bool
}

// StartGanesha starts a server with its files in dir. Stop ends it.
func StartGanesha(ctx context.Context, dir string, exports ...GaneshaExport) (*Ganesha, error) {
	g, err := NewGanesha(ctx, dir, exports...)
	if err != nil {
		return nil, err
	}
	if err = g.StartPortmapper(ctx); err == nil {
		err = g.Start(ctx)
	}
	if err != nil {
		g.Stop()
		return nil, err
	}
	return g, nil
}

// NewGanesha makes the place for a server, in which nothing runs yet. Stop ends it.
func NewGanesha(ctx context.Context, dir string, exports ...GaneshaExport) (*Ganesha, error) {
	g := &Ganesha{dir: dir, log: filepath.Join(dir, "ganesha.log")}
	conf := fmt.Sprintf(ganeshaConfig, GaneshaNFS, GaneshaMount)
	for i, e := range exports {
		access, squash := "RW", "No_Root_Squash"
		if e.ReadOnly {
			access = "RO"
		}
		if e.Squash {
			squash = "Root_Squash"
		}
		conf += fmt.Sprintf(ganeshaExport, i+1, e.Path, i+1, access, squash)
	}
	if err := os.WriteFile(filepath.Join(dir, "ganesha.conf"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	// The holder of the namespaces, and what runs in them, outlive the context of a call: Stop ends them.
	g.holder = exec.CommandContext(context.WithoutCancel(ctx), "unshare", "--net", "--mount", "sh", "-c",
		"mount -t tmpfs tmpfs /run && mkdir -p /run/ganesha && ip link set lo up && echo ready && exec sleep infinity")
	if err := g.hold(); err != nil {
		return nil, err
	}
	for _, to := range []struct {
		port int
		addr *string
	}{{GaneshaNFS, &g.Addr}, {GaneshaMount, &g.MountAddr}} {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			g.Stop()
			return nil, err
		}
		g.listeners, *to.addr = append(g.listeners, l), l.Addr().String()
		g.forwards.Go(func() { g.forward(l, ganeshaAddr(to.port)) })
	}
	return g, nil
}

// hold starts the holder and waits for its namespaces.
func (g *Ganesha) hold() error {
	out, err := g.holder.StdoutPipe()
	if err != nil {
		return err
	}
	if err := g.holder.Start(); err != nil {
		return err
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready"))); err != nil {
		_ = g.holder.Process.Kill() // the first error matters
		return fmt.Errorf("lab: no namespaces for an NFS server: %w", errors.Join(err, g.holder.Wait()))
	}
	return nil
}

// StartPortmapper starts the portmapper, which Ganesha needs.
func (g *Ganesha) StartPortmapper(ctx context.Context) error {
	g.portmapper = g.command(ctx, "rpcbind", "-f", "-w")
	if err := g.portmapper.Start(); err != nil {
		return err
	}
	return g.await(ctx, "rpcbind", "127.0.0.1:111")
}

// command returns a program in the server's namespaces.
func (g *Ganesha) command(ctx context.Context, args ...string) *exec.Cmd {
	ns := fmt.Sprintf("/proc/%d/ns/", g.holder.Process.Pid)
	return exec.CommandContext(context.WithoutCancel(ctx), "nsenter", append([]string{"--net=" + ns + "net", "--mount=" + ns + "mnt"}, args...)...)
}

// Enter returns a command line that runs in the server's network namespace.
func (g *Ganesha) Enter(args ...string) []string {
	return append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", g.holder.Process.Pid)}, args...)
}

// Start starts the server, also again after a Kill. Its portmapper has to run.
func (g *Ganesha) Start(ctx context.Context) error {
	g.cmd = g.command(ctx, "ganesha.nfsd", "-F", "-L", g.log, "-f", filepath.Join(g.dir, "ganesha.conf"), "-p", filepath.Join(g.dir, "ganesha.pid"))
	if err := g.cmd.Start(); err != nil {
		return err
	}
	return g.await(ctx, "ganesha", ganeshaAddr(GaneshaNFS))
}

// await waits until somebody listens on an address in the server's namespace.
func (g *Ganesha) await(ctx context.Context, name, addr string) error {
	var err error
	for range 600 {
		var nc net.Conn
		if nc, err = g.Dial(ctx, addr); err == nil {
			return nc.Close()
		}
		time.Sleep(200 * time.Millisecond)
	}
	log, _ := os.ReadFile(g.log) // the error matters more
	return fmt.Errorf("lab: %s does not listen: %w: %s", name, err, tail(string(log), 10))
}

// Within runs do on a thread in the server's network namespace. Sockets that do makes are there, and stay there.
func (g *Ganesha) Within(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and no unlock: the thread ends with the goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", g.holder.Process.Pid))
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			_ = ns.Close() // only opened
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// Dial connects to an address in the server's network namespace.
func (g *Ganesha) Dial(ctx context.Context, addr string) (nc net.Conn, err error) {
	err = g.Within(func() error {
		nc, err = new(net.Dialer).DialContext(ctx, "tcp", addr)
		return err
	})
	return nc, err
}

// forward takes connections to the server's namespace.
func (g *Ganesha) forward(l net.Listener, addr string) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		g.forwards.Go(func() {
			defer func() { _ = near.Close() }() // the other side has ended
			far, err := g.Dial(context.Background(), addr)
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(far, near)
				_ = far.Close() // ends the other copy
			}()
			_, _ = io.Copy(near, far)
			_ = far.Close()
		})
	}
}

// Kill kills the server, like a power cut of everything but its disk.
func (g *Ganesha) Kill() {
	_ = g.cmd.Process.Kill() // nsenter has become the server
	_ = g.cmd.Wait()
}

// Signal sends a signal to the server, such as SIGSTOP.
func (g *Ganesha) Signal(s os.Signal) error { return g.cmd.Process.Signal(s) }

// Said returns the last lines of the server's log.
func (g *Ganesha) Said() string {
	log, err := os.ReadFile(g.log)
	if err != nil {
		return err.Error()
	}
	return tail(strings.TrimSpace(string(log)), 10)
}

// Stop ends the server and its portmapper.
func (g *Ganesha) Stop() {
	if g.cmd != nil && g.cmd.Process != nil {
		g.Kill()
	}
	for _, l := range g.listeners {
		_ = l.Close()
	}
	for _, c := range []*exec.Cmd{g.portmapper, g.holder} {
		if c != nil && c.Process != nil {
			_ = c.Process.Kill() // nsenter has become the portmapper, unshare the holder
			_ = c.Wait()
		}
	}
	g.forwards.Wait()
}
