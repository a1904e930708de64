package receiver

import (
	"context"
	"errors"
	"net/netip"

	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
)

// minHandshakes is how many handshakes may run with one address, however few connections there may be in all.
const minHandshakes = 16

// newHandshakeLimit bounds the handshakes with one address to a quarter of all connections, so that nobody without a key
// shuts out the others for as long as handshakes may take. A whole site may be behind one address.
func newHandshakeLimit(connections int) *admission.HostLimit {
	return admission.NewHostLimit(max(minHandshakes, connections/4))
}

// Handshake runs handshake, which finds out who the peer at addr is, unless too many from there are at that already, and reports
// whether it is known now. What went wrong is logged and counted.
func (s *Server) Handshake(addr, transport string, handshake func() error) bool {
	err := s.limitHandshakes(neighbourhood(addr), handshake)
	if err == nil {
		return true
	}
	code := protocol.CodeIdentity
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code = protocol.CodeTimeout
	case errors.Is(err, protocol.CodeBusy):
		code = protocol.CodeBusy
	}
	s.refused(code, func() {
		s.cfg.Log.Warn("refused a connection", "peer", addr, "transport", transport, "code", string(code), "error", err)
	})
	return false
}

// refused counts a peer that was turned away, and logs it, unless many are: the first few, then one each second. A log is on a disk,
// too.
func (s *Server) refused(code protocol.Code, log func()) {
	s.Refused(code)
	s.refusals.Do(log)
}

// maxStrangers is how many of the connections may be in their handshake: with the half that one host may have, it leaves an
// eighth for the first sessions of other hosts.
func maxStrangers(connections int) int { return max(2*minHandshakes, connections*3/8) }

// limitHandshakes runs handshake unless too many run already, with from or in all.
func (s *Server) limitHandshakes(from string, handshake func() error) error {
	select {
	case s.strangers <- struct{}{}:
		defer func() { <-s.strangers }()
	default:
		return protocol.Errorf(protocol.CodeBusy, "%d connections have not completed their handshake", cap(s.strangers))
	}
	if !s.handshakes.Acquire(from) {
		return protocol.Errorf(protocol.CodeBusy, "%d connections from %s have not completed their handshake", s.handshakes.Limit(), from)
	}
	defer s.handshakes.Release(from)
	return handshake()
}

// neighbourhood returns what one peer may have of the addresses: one of IPv4, the network of 64 bits of IPv6.
func neighbourhood(addr string) string {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return addr
	}
	ip := ap.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	network, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return addr
	}
	return network.String()
}
