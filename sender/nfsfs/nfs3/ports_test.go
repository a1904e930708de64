package nfs3

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/vmware/go-nfs-client/nfs"
	"github.com/vmware/go-nfs-client/nfs/rpc"
	"github.com/vmware/go-nfs-client/nfs/xdr"

	"github.com/corehaul/corehaul/sender/nfsfs/nfs3/nfs3test"
)

// ipv6Conn is a connection that says that it leads to an address of IPv6.
type ipv6Conn struct{ net.Conn }

func (ipv6Conn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv6loopback, Port: rpc.PmapPort} }

// TestPortsIPv6: over IPv6, the portmapper is asked for the ports of IPv6. They may be others than those of IPv4.
func TestPortsIPv6(t *testing.T) {
	near, far := net.Pipe()
	defer func() { _ = far.Close() }()
	go func() {
		for {
			record, err := readRecord(far)
			if err != nil {
				return
			}
			var call struct {
				Xid, Type uint32
				rpc.Header
				Prog, Vers uint32
				NetID      string
			}
			_ = xdr.Read(bytes.NewReader(record), &call)
			results := new(bytes.Buffer)
			switch {
			case call.Header.Vers != rpcbVers || call.Proc != rpcbGetAddr || call.NetID != "tcp6":
				_ = xdr.Write(results, uint32(1)) // as version 2 has it
			case call.Prog == nfs.Nfs3Prog:
				_ = xdr.Write(results, "::.8.1")
			default:
				_ = xdr.Write(results, "2001:db8::1.78.80")
			}
			if sendAnswer(far, record[:4], results.Bytes()) != nil {
				return
			}
		}
	}()
	conf := Config{Host: "::1", Dial: func(context.Context, *net.Dialer, string, string) (net.Conn, error) { return ipv6Conn{near}, nil }}
	if err := conf.findPorts(t.Context()); err != nil || conf.Port != 2049 || conf.MountPort != 20048 {
		t.Errorf("ports %d and %d, %v", conf.Port, conf.MountPort, err)
	}
}

func TestPortOfAddr(t *testing.T) {
	for addr, want := range map[string]uint16{
		"": 0, "::": 0, "8.1": 0, "::.8": 0, "::.8.1": 2049, "192.0.2.1.0.111": 111, "::.256.1": 0, "::.-1.1": 0, "::.8.1.": 0,
	} {
		if got := portOfAddr(addr); got != want {
			t.Errorf("%q: %d, want %d", addr, got, want)
		}
	}
}

// TestDialPorts: connections that exist at the same time come from ports of their own, privileged ones if this process may use them.
func TestDialPorts(t *testing.T) {
	s := nfs3test.Start(t, nfs3test.Behaviour{})
	conf := Config{Host: "127.0.0.1"}
	seen := map[int]bool{}
	for range 3 {
		c, err := conf.dial(t.Context(), s.Port())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		local, ok := c.LocalAddr().(*net.TCPAddr)
		if !ok || seen[local.Port] || os.Getuid() == 0 && (local.Port < minPrivileged || local.Port > maxPrivileged) {
			t.Errorf("%v, after %v", c.LocalAddr(), seen)
			return
		}
		seen[local.Port] = true
	}
}

// FuzzPortOfAddr: a port that was found is found again in another address.
func FuzzPortOfAddr(f *testing.F) {
	f.Add("::.8.1")
	f.Add("192.0.2.1.0.111")
	f.Add("..")
	f.Fuzz(func(t *testing.T, addr string) {
		port := portOfAddr(addr)
		if again := portOfAddr(fmt.Sprintf("::.%d.%d", port>>8, port&0xff)); again != port {
			t.Errorf("%q: %d, then %d", addr, port, again)
		}
	})
}
