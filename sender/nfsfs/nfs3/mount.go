package nfs3

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/vmware/go-nfs-client/nfs"
	"github.com/vmware/go-nfs-client/nfs/rpc"
)

// Refusal is the error of a server that answers, but does not do what it is asked for.
type Refusal interface {
	error
	// ForGood reports whether no later try gets another answer. Servers that are still starting refuse what they take later.
	ForGood() bool
}

// MountError means that the server does not let this client mount the directory.
type MountError struct {
	Dir  string
	Host string
	// Status is a mountstat3 (RFC 1813, appendix I). It has the numbers of nfsstat3.
	Status Status
}

// Error says which directory cannot be mounted, why, and what to do.
func (e *MountError) Error() string {
	const show = "; 'showmount -e %s' lists the exports and to whom they are: %s"
	switch {
	case e.Status == nfs.MNT3ErrNoEnt:
		return fmt.Sprintf("mount refused (MNT3ERR_NOENT): the server exports neither %s nor a directory above it"+show, e.Dir, e.Host, "correct the path, or export it")
	case e.NoExport():
		return fmt.Sprintf("mount refused (MNT3ERR_ACCES): the server exports neither %s nor a directory above it to this client"+show, e.Dir, e.Host,
			"let the export allow this machine's address")
	}
	return fmt.Sprintf("mount refused: the server does not let mount %s: %v", e.Dir, e.Status)
}

// NoExport reports whether the server has no such export, or not for this client. It may come when the server has started: its
// table of exports is loaded, and file systems are mounted, while it answers already.
func (e *MountError) NoExport() bool {
	return e.Status == nfs.MNT3ErrNoEnt || e.Status == nfs.MNT3ErrAcces || e.Status == nfs.MNT3ErrPerm
}

// ForGood reports whether no later try gets another answer.
func (e *MountError) ForGood() bool {
	return e.Status == nfs.MNT3ErrNotDir || e.Status == nfs.MNT3ErrNameTooLong
}

// PortError means that the portmapper cannot say where a service is. While a server starts, its portmapper is not there, and then
// knows no NFS, so a later try may find it.
type PortError struct {
	Text string
	Err  error
}

// Error says what the portmapper does not know.
func (e *PortError) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *PortError) Unwrap() error { return e.Err }

// Hints says what to do next.
func (e *PortError) Hints() []string {
	return []string{"'rpcinfo -p HOST' lists what the server offers; if its portmapper cannot be reached, name both ports, nfs://HOST:PORT/PATH?mountport=PORT"}
}

// findPorts asks the portmapper for the ports that are 0.
func (conf *Config) findPorts(ctx context.Context) error {
	port := conf.PortmapPort
	if port == 0 {
		port = rpc.PmapPort
	}
	nc, err := conf.dial(ctx, port)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return &PortError{fmt.Sprintf("the server has no portmapper, or it is still starting: %v", err), err}
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return &PortError{fmt.Sprintf("portmapper: %v; a firewall may hide it", err), err}
	}
	if err != nil {
		return fmt.Errorf("portmapper: %w", err)
	}
	c := newConn(nc, rpc.AuthNull, Patience)
	defer c.close()
	defer context.AfterFunc(ctx, func() { c.fail(context.Cause(ctx)) })()
	for _, service := range []struct {
		name string
		prog uint32
		port *uint16
	}{{"MOUNT", nfs.MountProg, &conf.MountPort}, {"NFS", nfs.Nfs3Prog, &conf.Port}} {
		if *service.port != 0 {
			continue
		}
		answer, err := portOf(c, service.prog)
		if err != nil {
			return fmt.Errorf("portmapper: %w", err)
		}
		if answer == 0 {
			return &PortError{Text: fmt.Sprintf("the server's portmapper knows no %s version 3 over TCP; the server does not offer it, or it is still starting", service.name)}
		}
		*service.port = answer
	}
	return nil
}

// Version 4 of the portmapper, RFC 1833, section 2.
const (
	rpcbVers    = 4
	rpcbGetAddr = 3
)

// portOf asks a portmapper for the TCP port of version 3 of a program, 0 if it knows none. Version 2 knows ports of IPv4 only, and a
// service may have another one for IPv6.
func portOf(c *conn, prog uint32) (uint16, error) {
	if addr, ok := c.nc.RemoteAddr().(*net.TCPAddr); ok && addr.IP.To4() == nil {
		return portOfIPv6(c, prog)
	}
	b, err := c.call(rpc.PmapProg, rpc.PmapVers, rpc.PmapProcGetPort,
		&rpc.Mapping{Prog: prog, Vers: nfs.Nfs3Vers, Prot: rpc.IPProtoTCP}, nil)
	if err != nil {
		return 0, err
	}
	var port uint32
	if err := newDecoder(b).read(&port); err != nil {
		return 0, err
	}
	if port > math.MaxUint16 {
		return 0, nil
	}
	return uint16(port), nil
}

// portOfIPv6 is portOf for a connection over IPv6.
func portOfIPv6(c *conn, prog uint32) (uint16, error) {
	args := &struct {
		Prog, Vers         uint32
		NetID, Addr, Owner string
	}{Prog: prog, Vers: nfs.Nfs3Vers, NetID: "tcp6"}
	b, err := c.call(rpc.PmapProg, rpcbVers, rpcbGetAddr, args, nil)
	if err != nil {
		return 0, err
	}
	var addr string
	if err := newDecoder(b).read(&addr); err != nil {
		return 0, err
	}
	return portOfAddr(addr), nil
}

// portOfAddr returns the port in a universal address (RFC 5665, section 5.2.3): its last two numbers are the bytes of the port. It returns 0
// if there is none.
func portOfAddr(addr string) uint16 {
	parts := strings.Split(addr, ".")
	if len(parts) < 3 {
		return 0
	}
	high, herr := strconv.ParseUint(parts[len(parts)-2], 10, 8)
	low, lerr := strconv.ParseUint(parts[len(parts)-1], 10, 8)
	if herr != nil || lerr != nil {
		return 0
	}
	return uint16(high<<8 | low) //nolint:gosec // two bytes
}

// mount mounts dir, an absolute path without dots, or the nearest directory above it. It returns the handle and the path of what is mounted, and what follows it.
func (conf *Config) mount(ctx context.Context, cred rpc.Auth, dir string) (root FH, mounted, rest string, err error) {
	nc, err := conf.dial(ctx, conf.MountPort)
	if err != nil {
		return nil, "", "", fmt.Errorf("MOUNT: %w", err)
	}
	c := newConn(nc, cred, Patience)
	defer c.close()
	defer context.AfterFunc(ctx, func() { c.fail(context.Cause(ctx)) })()
	var first *MountError
	for mounted = dir; ; mounted = path.Dir(mounted) {
		root, err = conf.mnt(c, mounted)
		refusal, refused := errors.AsType[*MountError](err)
		if !refused {
			return root, mounted, strings.TrimPrefix(strings.TrimPrefix(dir, mounted), "/"), err
		}
		if first == nil || refusal.Status == nfs.MNT3ErrAcces && mounted != "/" { // who asks for /a does not expect /
			first = &MountError{Dir: dir, Host: conf.Host, Status: refusal.Status}
		}
		if mounted == "/" {
			return nil, "", "", first
		}
	}
}

// mnt mounts one directory. Nothing is unmounted later: the server's list of mounts is only for people to look at.
func (conf *Config) mnt(c *conn, dir string) (FH, error) {
	b, err := c.call(nfs.MountProg, nfs.MountVers, nfs.MountProc3MNT, &struct{ Dir string }{dir}, nil)
	if err != nil {
		return nil, fmt.Errorf("MOUNT: %w", err)
	}
	d := newDecoder(b)
	var status Status
	if err := d.read((*uint32)(&status)); err != nil {
		return nil, fmt.Errorf("MOUNT: %w", err)
	}
	if status != statusOK {
		return nil, &MountError{Dir: dir, Host: conf.Host, Status: status}
	}
	var res struct {
		FH      []byte
		Flavors []uint32
	}
	if err := d.read(&res); err != nil {
		return nil, fmt.Errorf("MOUNT: %w", err)
	}
	return checkFH(res.FH)
}

// checkFH returns b if that can be a file handle.
func checkFH(b []byte) (FH, error) {
	if len(b) == 0 || len(b) > maxFH {
		return nil, fmt.Errorf("the server sends a file handle of %d bytes", len(b))
	}
	return b, nil
}
