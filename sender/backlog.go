package sender

import (
	"crypto/tls"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// backlog returns a function that says how many bytes a TCP connection has accepted and the peer's kernel has not confirmed. A slow line
// shows there at once: the kernel accepts megabytes before a write has to wait. The function returns 0 for another connection.
func backlog(nc net.Conn) func() uint64 {
	if tc, ok := nc.(*tls.Conn); ok {
		nc = tc.NetConn()
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return func() uint64 { return 0 }
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() uint64 { return 0 }
	}
	return func() (queued uint64) {
		_ = raw.Control(func(fd uintptr) { // a closed connection has nothing queued
			if n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil && n > 0 {
				queued = uint64(n)
			}
		})
		return queued
	}
}
