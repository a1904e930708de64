package nfs3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/vmware/go-nfs-client/nfs"
	"github.com/vmware/go-nfs-client/nfs/rpc"
)

// Patience bounds the time for one answer, and the time for which a server may ask to be asked again later (JUKEBOX). A
// server that hangs for half a minute only delays the dump.
const Patience = time.Minute

// Times between two tries after JUKEBOX. Linux waits 5 s (NFS_JUKEBOX_RETRY_TIME in include/linux/nfs_fs.h); a dump is in
// more of a hurry.
const (
	firstJukebox = 100 * time.Millisecond
	mostJukebox  = 5 * time.Second
)

// Config says where a server is and as whom to speak to it.
type Config struct {
	// Host is a name or an address.
	Host string
	// Port and MountPort are the TCP ports of NFS and MOUNT. 0 means that the portmapper knows.
	Port, MountPort uint16
	// PortmapPort is the port of the portmapper, 0 for 111.
	PortmapPort uint16
	// UID and GID are those of AUTH_UNIX.
	UID, GID uint32
	// Dial, unless nil, connects in place of d, which binds the connection to a privileged port.
	Dial func(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error)
}

// FH is a file handle (nfs_fh3).
type FH []byte

// maxFH is NFS3_FHSIZE, in bytes.
const maxFH = 64

// Client is a mounted directory of a server.
type Client struct {
	c *conn
	// Root is the mounted directory.
	Root FH
	// Mounted is its path, Rest what follows it in the path that was asked for, relative.
	Mounted, Rest string
	// ReadLen and WriteLen are how much the server wants in one READ or WRITE, in bytes.
	ReadLen, WriteLen uint32
	// RoundTrip is how long the server took for its last answer to Mount.
	RoundTrip time.Duration
	jukebox   jukeboxTimes
}

// jukeboxTimes are the first and the longest pause after JUKEBOX, and how long a call is repeated.
type jukeboxTimes struct{ first, most, all time.Duration }

// Mount connects to a server and mounts a directory: dir, an absolute path without dots, or the nearest directory above it that the server lets mount. If
// the server refuses, the error is a Refusal.
func Mount(ctx context.Context, conf Config, dir string) (*Client, error) {
	cred := authUnix(conf.UID, conf.GID)
	if conf.MountPort == 0 || conf.Port == 0 {
		if err := conf.findPorts(ctx); err != nil {
			return nil, err
		}
	}
	root, mounted, rest, err := conf.mount(ctx, cred, dir)
	if err != nil {
		return nil, err
	}
	nc, err := conf.dial(ctx, conf.Port)
	if err != nil {
		return nil, fmt.Errorf("NFS: %w", err)
	}
	c := &Client{
		c: newConn(nc, cred, Patience), Root: root, Mounted: mounted, Rest: rest,
		jukebox: jukeboxTimes{firstJukebox, mostJukebox, Patience},
	}
	stop := context.AfterFunc(ctx, func() { c.c.fail(context.Cause(ctx)) })
	start := time.Now()
	err = c.fsinfo()
	c.RoundTrip = time.Since(start)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("NFS: fsinfo %s: %w", mounted, err)
	}
	return c, nil
}

// LocalAddr is the address of this end of the connection.
func (c *Client) LocalAddr() net.Addr { return c.c.nc.LocalAddr() }

// Lost reports whether the connection has ended.
func (c *Client) Lost() bool {
	select {
	case <-c.c.done:
		return true
	default:
		return false
	}
}

// Close ends the connection.
func (c *Client) Close() { c.c.close() }

// authUnix returns credentials (RFC 5531, appendix A).
func authUnix(uid, gid uint32) rpc.Auth {
	name, err := os.Hostname()
	if err != nil || len(name) > maxMachineName {
		name = "corehaul"
	}
	// NewAuthUnix of the library claims the supplementary group 0.
	return rpc.AuthUnix{Machinename: name, Uid: uid, Gid: gid, GidLen: 1, Gids: gid}.Auth()
}

// maxMachineName is the limit of machinename in RFC 5531, in bytes.
const maxMachineName = 255

// Privileged ports from which servers accept calls: those of RPC_DEF_MIN_RESVPORT to RPC_DEF_MAX_RESVPORT in the kernel's
// include/linux/sunrpc/xprtsock.h. Below them, network cards with IPMI keep packets to themselves (623, 664).
const (
	minPrivileged = 665
	maxPrivileged = 1023
)

// dial connects from a privileged port if this process may use one, because servers refuse others unless the export says
// "insecure".
func (conf *Config) dial(ctx context.Context, port uint16) (net.Conn, error) {
	addr := net.JoinHostPort(conf.Host, strconv.Itoa(int(port)))
	d := &net.Dialer{Control: bindPrivileged}
	if conf.Dial != nil {
		return conf.Dial(ctx, d, "tcp", addr)
	}
	return d.DialContext(ctx, "tcp", addr)
}

// bindPrivileged binds a new socket to a privileged port. Each socket has a port of its own, because a host may have several
// addresses that are tried at the same time.
func bindPrivileged(network, _ string, raw syscall.RawConn) error {
	var err error
	if cerr := raw.Control(func(fd uintptr) { err = bindSocket(int(fd), network) }); cerr != nil {
		return cerr
	}
	return err
}

func bindSocket(fd int, network string) error {
	const ports = maxPrivileged - minPrivileged + 1
	first := int(time.Now().UnixNano() % ports)
	for i := range ports {
		port := minPrivileged + (first+i)%ports
		var local syscall.Sockaddr = &syscall.SockaddrInet4{Port: port}
		if network == "tcp6" {
			local = &syscall.SockaddrInet6{Port: port}
		}
		err := syscall.Bind(fd, local)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			continue
		case errors.Is(err, fs.ErrPermission):
			return nil // the kernel chooses another port
		}
		return err
	}
	return fmt.Errorf("all privileged ports are in use: %w", syscall.EADDRINUSE)
}

// do calls a procedure of NFS and reads its result into res, a pointer, unless that is nil. It returns what follows the result.
// An error of the server is a Status.
func (c *Client) do(proc uint32, args any, data []byte, res any) ([]byte, error) {
	wait := c.jukebox.first
	for start := time.Now(); ; {
		b, err := c.c.call(nfs.Nfs3Prog, nfs.Nfs3Vers, proc, args, data)
		if err != nil {
			return nil, err
		}
		d := newDecoder(b)
		var status Status
		if err := d.read((*uint32)(&status)); err != nil {
			return nil, err
		}
		switch {
		case status == statusJukebox && time.Since(start) < c.jukebox.all:
			select {
			case <-time.After(wait):
			case <-c.c.done:
				return nil, fmt.Errorf("%w; it had answered: %w", c.c.err, status)
			}
			wait = min(2*wait, c.jukebox.most)
			continue
		case status != statusOK:
			return nil, status
		case res == nil:
			return nil, nil
		}
		if err := d.read(res); err != nil {
			return nil, err
		}
		return b[len(b)-d.r.Len():], nil
	}
}
