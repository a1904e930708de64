package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A server is the receiver of one run.
type server struct {
	*process
	by     syscall.Signal // ends it
	helper *process       // of ganesha; may be nil
}

// A receiver is a kind of server.
type receiver struct {
	name  string
	start func(context.Context, *trip) (*server, error)
	// settle waits for what the receiver does when the sender has gone; nil if it does nothing then.
	settle func(context.Context, *trip) error
}

var (
	corehaulServe = &receiver{"corehaul serve", serveCorehaul, sealed}
	openSSH       = &receiver{"sshd", serveSSHD, nil}
	ganesha       = &receiver{"ganesha.nfsd", serveGanesha, nil}
)

// sealed waits until the dump is sealed: a seal writes SHA256SUMS last.
func sealed(ctx context.Context, t *trip) error {
	for {
		sums, err := filepath.Glob(filepath.Join(t.store(), "dumps", "*", "*", "SHA256SUMS"))
		if err != nil || len(sums) > 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the seal of the dump in %s: %w", t.store(), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// newServer makes the program of a server, on its core in a bound cell. SIGTERM ends it.
func (t *trip) newServer(ctx context.Context, argv []string) *server {
	if t.job.Bound {
		argv = bind(receiverCore, argv)
	}
	return &server{process: newMeasured(ctx, filepath.Join(t.dir, "receiver.rss"), argv), by: syscall.SIGTERM}
}

// startServer starts a server that does not say when it listens.
func (t *trip) startServer(ctx context.Context, argv []string) (*server, error) {
	s := t.newServer(ctx, argv)
	if err := t.net.far.do(s.cmd.Start); err != nil {
		return nil, s.failed(err)
	}
	return s, nil
}

// end ends a server and what helped it.
func (s *server) end() (usage, error) {
	u, err := s.stop(s.by)
	if s.helper != nil {
		_ = s.helper.kill() // it has no state to save
		_ = s.helper.cmd.Wait()
	}
	return u, err
}

// serveCorehaul starts corehaul with an empty store. It makes no reports of what crashed, since none of its peers do.
func serveCorehaul(ctx context.Context, t *trip) (*server, error) {
	if err := t.copyServerKeys(); err != nil {
		return nil, err
	}
	argv := []string{
		t.programs.serve, "serve", "--data", t.store(), "--ca", t.programs.keys.ca, "--reserve", "0", "--report-jobs", "0",
		"--tls", address("0.0.0.0", tlsPort), "--ssh", address("0.0.0.0", sshPort), "--authorized-keys", t.programs.keys.authorized,
	}
	s := t.newServer(ctx, argv)
	s.cmd.Stdout = nil
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := t.net.far.do(s.cmd.Start); err != nil {
		return nil, s.failed(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "ready ") {
		_ = s.kill() // the first error matters
		return nil, s.failed(fmt.Errorf("it is not ready: %q: %w", line, errors.Join(err, s.cmd.Wait())))
	}
	return s, nil
}

// copyServerKeys puts SSH host keys into the store, so that the server does not make them.
func (t *trip) copyServerKeys() error {
	if err := os.Mkdir(t.store(), 0o700); err != nil {
		return err
	}
	for _, file := range t.programs.keys.serverKeys {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(t.store(), filepath.Base(file)), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// sshdConfig lets root log in by key, with files in any directory and without PAM.
const sshdConfig = `Port %d
HostKey %s
AuthorizedKeysFile %s
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
`

// serveSSHD starts OpenSSH's server.
func serveSSHD(ctx context.Context, t *trip) (*server, error) {
	conf := filepath.Join(t.dir, "sshd_config")
	text := fmt.Sprintf(sshdConfig, sshdPort, t.programs.keys.host, t.programs.keys.authorized)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // for privilege separation; Debian's service makes it
		return nil, err
	}
	s, err := t.startServer(ctx, []string{"/usr/sbin/sshd", "-D", "-e", "-f", conf})
	if err != nil {
		return nil, err
	}
	return s, t.orKill(s, t.net.listening(ctx, sshdPort))
}

const ganeshaConfig = `NFS_CORE_PARAM {
	Protocols = 3; NFS_Port = %d; MNT_Port = %d;
	Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = false;
}
EXPORT {
	Export_Id = 1; Path = %s; Pseudo = /export; Access_Type = RW; Squash = No_Root_Squash;
	SecType = sys; Protocols = 3; Transports = TCP; FSAL { Name = VFS; }
}
`

// serveGanesha starts an NFS server in a mount namespace with a /run of its own, where its portmapper is.
func serveGanesha(ctx context.Context, t *trip) (*server, error) {
	conf := filepath.Join(t.dir, "ganesha.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, ganeshaConfig, nfsPort, mountPort, t.store()), 0o600); err != nil {
		return nil, err
	}
	if err := os.Mkdir(t.store(), 0o700); err != nil {
		return nil, err
	}
	helper := newProcess(ctx, []string{
		"unshare", "--mount", "sh", "-c",
		"mount -t tmpfs tmpfs /run && mkdir -p /run/ganesha && echo ready && exec rpcbind -f -w",
	})
	helper.cmd.Stdout = nil
	out, err := helper.cmd.StdoutPipe()
	if err == nil {
		err = t.net.far.do(helper.cmd.Start)
	}
	if err != nil {
		return nil, helper.failed(err)
	}
	s := &server{process: helper, by: syscall.SIGKILL}
	if _, err := io.ReadFull(out, make([]byte, len("ready"))); err != nil {
		return nil, t.orKill(s, fmt.Errorf("no portmapper: %w", err))
	}
	if err := t.net.listening(ctx, portmapPort); err != nil {
		return nil, t.orKill(s, err)
	}
	nfs, err := t.startServer(ctx, []string{
		"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", helper.cmd.Process.Pid),
		"ganesha.nfsd", "-F", "-L", filepath.Join(t.dir, "ganesha.log"), "-f", conf, "-p", filepath.Join(t.dir, "ganesha.pid"),
	})
	if err != nil {
		return nil, t.orKill(s, err)
	}
	nfs.helper, nfs.by = helper, syscall.SIGKILL // it has no state to save
	return nfs, t.orKill(nfs, t.net.listening(ctx, nfsPort))
}

// portmapPort is that of rpcbind.
const portmapPort = 111

// orKill ends a server whose start failed, and adds what it said.
func (t *trip) orKill(s *server, err error) error {
	if err == nil {
		return nil
	}
	_ = s.kill() // the error matters
	if s.helper != nil {
		_ = s.helper.kill()
	}
	_ = s.cmd.Wait()
	return s.failed(err)
}
