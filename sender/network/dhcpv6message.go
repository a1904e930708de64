package network

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Kinds of messages of DHCPv6 (RFC 8415, section 7.3) that a client of addresses and name servers needs.
const (
	solicit6     = 1
	advertise6   = 2
	request6     = 3
	renew6       = 5
	rebind6      = 6
	reply6       = 7
	information6 = 11
)

// Options of DHCPv6 (RFC 8415, section 21; RFC 3646 for the last two).
const (
	optClientID6   = 1
	optServerID6   = 2
	optIANA6       = 3
	optIAAddr6     = 5
	optRequest6    = 6
	optPreference6 = 7
	optElapsed6    = 8
	optStatus6     = 13
	optDNS6        = 23
	optDomains6    = 24
)

const (
	// minDUID and maxDUID are the lengths of the shortest and the longest DUID in bytes, with its type (RFC 8415, section 11.1).
	minDUID, maxDUID = 3, 130
	// maxStatus bounds the text of a status, in bytes.
	maxStatus = 200
	// duidLL and hwEthernet begin a DUID that is made of a MAC address (RFC 8415, section 11.4).
	duidLL, hwEthernet = 3, 1
)

// id6 is how a client names itself: its DUID, and the IAID of its one address.
type id6 struct {
	duid []byte
	iaid [4]byte
}

// newID6 makes them of the MAC address of a link, so that they are the same after each panic.
func newID6(mac net.HardwareAddr) id6 {
	id := id6{duid: append([]byte{0, duidLL, 0, hwEthernet}, mac...)}
	copy(id.iaid[:], mac[max(0, len(mac)-len(id.iaid)):])
	return id
}

// lease6 is what a server offers or grants. All but the server's DUID may be missing. A lifetime of 1<<32 - 1 seconds does not end.
type lease6 struct {
	server     []byte // its DUID
	from       netip.Addr
	addr       netip.Addr
	t1, t2     time.Duration // when to renew and to rebind; 0 leaves it to the client
	preferred  time.Duration
	valid      time.Duration
	preference byte
	dns        []netip.Addr
	search     []string
	refused    *status6Error // nil unless the server refuses
}

// message6 makes the packet of a message. lease is the one that it asks for or is about, nil if none is known yet.
func message6(kind byte, transaction [3]byte, id id6, elapsed time.Duration, lease *lease6) []byte {
	b := append([]byte{kind}, transaction[:]...)
	b = option6(b, optClientID6, id.duid)
	if lease != nil && kind != rebind6 {
		b = option6(b, optServerID6, lease.server)
	}
	if kind != information6 {
		ia := append(id.iaid[:], make([]byte, 8)...) // T1 and T2 are the server's choice
		if lease != nil {
			ia = option6(ia, optIAAddr6, append(lease.addr.AsSlice(), make([]byte, 8)...))
		}
		b = option6(b, optIANA6, ia)
	}
	b = option6(b, optElapsed6, binary.BigEndian.AppendUint16(nil, uint16(min(elapsed/(10*time.Millisecond), 1<<16-1))))
	return option6(b, optRequest6, []byte{0, optDNS6, 0, optDomains6})
}

func option6(b []byte, code uint16, data []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

// options6 calls f for each option. It reports whether none is cut off.
func options6(b []byte, f func(code uint16, data []byte)) bool {
	for len(b) >= 4 {
		end := 4 + int(binary.BigEndian.Uint16(b[2:]))
		if end > len(b) {
			return false
		}
		f(binary.BigEndian.Uint16(b), b[4:end])
		b = b[end:]
	}
	return len(b) == 0
}

// errNoAddress6 says that a server answers and has no address, or none that can be used.
var errNoAddress6 = errors.New("it offers no address")

// highestPreference6 is that of a server which is to be taken at once (RFC 8415, section 21.8).
const highestPreference6 = 255

// errNotOurs says that a packet is no answer to what this client asked, or damaged. It is to be ignored.
var errNotOurs = errors.New("no answer to this client")

// status6Error is a server's refusal (RFC 8415, section 21.13).
type status6Error struct {
	code uint16
	text string
}

// Error has the server's words.
func (e *status6Error) Error() string { return fmt.Sprintf("status %d %q", e.code, e.text) }

// answer6 reads the answer to a message: the packet of a server. It is safe for hostile packets. The error is errNotOurs, or a
// *status6Error if the server refuses.
func answer6(b []byte, kind byte, transaction [3]byte, id id6) (*lease6, error) {
	if len(b) < 4 || b[0] != kind || [3]byte(b[1:4]) != transaction {
		return nil, errNotOurs
	}
	l := &lease6{}
	var client []byte
	whole := options6(b[4:], func(code uint16, data []byte) {
		switch {
		case code == optClientID6:
			client = data
		case code == optServerID6:
			l.server = bytes.Clone(data)
		case code == optPreference6 && len(data) == 1:
			l.preference = data[0]
		case code == optStatus6:
			l.refuse(data)
		case code == optIANA6:
			l.readIANA(data, id)
		case code == optDNS6:
			l.dns = addresses6(data)
		case code == optDomains6:
			l.search = domains(data)
		}
	})
	if !whole || !bytes.Equal(client, id.duid) || len(l.server) < minDUID || len(l.server) > maxDUID {
		return nil, errNotOurs
	}
	if l.refused != nil {
		return nil, l.refused
	}
	return l, nil
}

// refuse notes a status other than success.
func (l *lease6) refuse(data []byte) {
	if len(data) < 2 {
		return
	}
	if code := binary.BigEndian.Uint16(data); code != 0 {
		l.refused = &status6Error{code, string(data[2:min(len(data), maxStatus)])}
	}
}

// readIANA takes the first good address of this client's IA_NA (RFC 8415, section 21.4), with its times.
func (l *lease6) readIANA(data []byte, id id6) {
	if len(data) < 12 || [4]byte(data) != id.iaid {
		return // another one's
	}
	t1, t2 := seconds6(data[4:]), seconds6(data[8:])
	if t1 > t2 && t2 > 0 {
		return // RFC 8415 has it ignored
	}
	options6(data[12:], func(code uint16, data []byte) {
		switch {
		case code == optStatus6:
			l.refuse(data)
			return
		case code != optIAAddr6 || len(data) < 24 || l.addr.IsValid():
			return
		}
		addr, preferred, valid := netip.AddrFrom16([16]byte(data)), seconds6(data[16:]), seconds6(data[20:])
		if addr.IsGlobalUnicast() && !addr.Is4In6() && preferred <= valid && valid > 0 {
			l.addr, l.preferred, l.valid, l.t1, l.t2 = addr, preferred, valid, t1, t2
		}
	})
}

func seconds6(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Second
}

// addresses6 reads a list of addresses of name servers, and leaves out what cannot be one.
func addresses6(b []byte) []netip.Addr {
	var list []netip.Addr
	for ; len(b) >= 16 && len(list) < maxServers; b = b[16:] {
		if a := netip.AddrFrom16([16]byte(b)).Unmap(); (a.IsGlobalUnicast() || a.IsLinkLocalUnicast()) && a.Is6() {
			list = append(list, a)
		}
	}
	return list
}

// domains reads a list of domain names without compression (RFC 8415, section 10; RFC 8106 pads it with zeros).
func domains(b []byte) []string {
	var list []string
	var name []byte
	for len(b) > 0 && len(list) < maxSearch {
		n := int(b[0])
		if n >= len(b) || n > 63 {
			break
		}
		switch {
		case n > 0:
			name = append(append(name, b[1:1+n]...), '.')
		case len(name) > 0:
			list = append(list, string(name[:len(name)-1]))
			name = name[:0]
		}
		b = b[1+n:]
	}
	return list
}
