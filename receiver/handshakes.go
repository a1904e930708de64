package receiver

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"

	"github.com/corehaul/corehaul/protocol"
)

// minStrangers is how many strangers one neighbourhood may always have, whatever the limit of connections.
const minStrangers = 16

// strangers has the connections whose peers are not authenticated yet. If all places are taken, a newcomer gets the place
// of the oldest stranger of the neighbourhood with the most. So peers without a key cannot shut out others.
// It is safe for concurrent use.
type strangers struct {
	most int // in all
	each int // from one neighbourhood: a whole site may be behind one address

	mu      sync.Mutex
	count   int
	started uint64
	from    map[string][]*stranger // by neighbourhood, oldest first
}

// stranger is one of these connections.
type stranger struct {
	number uint64 // in the order of arrival
	cancel context.CancelCauseFunc
}

// newStrangers returns the strangers of a receiver with a limit of connections. One host may have half of these, strangers
// three eighths. An eighth is left for the first sessions of other hosts.
func newStrangers(connections int) *strangers {
	return &strangers{most: max(2*minStrangers, connections*3/8), each: max(minStrangers, connections/4), from: map[string][]*stranger{}}
}

// enter takes a place for a connection. cancel ends its handshake if another connection gets the place.
func (s *strangers) enter(from string, cancel context.CancelCauseFunc) (*stranger, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.from[from]) >= s.each {
		return nil, protocol.Errorf(protocol.CodeBusy, "%d connections from %s have not completed their handshake", s.each, from)
	}
	if s.count >= s.most && !s.makeRoom(len(s.from[from])) {
		return nil, protocol.Errorf(protocol.CodeBusy, "%d connections have not completed their handshake", s.most)
	}
	s.started++
	st := &stranger{number: s.started, cancel: cancel}
	s.from[from] = append(s.from[from], st)
	s.count++
	return st, nil
}

// makeRoom ends the oldest handshake of the neighbourhood with the most, if it has more than the newcomer's.
func (s *strangers) makeRoom(has int) bool {
	most := ""
	for from, list := range s.from {
		if more := len(list) - len(s.from[most]); more > 0 || more == 0 && list[0].number < s.from[most][0].number {
			most = from
		}
	}
	list := s.from[most]
	if len(list) <= has {
		return false
	}
	list[0].cancel(protocol.Errorf(protocol.CodeBusy, "%d connections have not completed their handshake; this one, from %s, is the oldest of %d from there", s.most, most, len(list)))
	s.remove(most, list[0])
	return true
}

// leave releases the place of a connection unless a newcomer has it.
func (s *strangers) leave(from string, st *stranger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(from, st)
}

func (s *strangers) remove(from string, st *stranger) {
	i := slices.Index(s.from[from], st)
	if i < 0 {
		return
	}
	s.count--
	if s.from[from] = slices.Delete(s.from[from], i, i+1); len(s.from[from]) == 0 {
		delete(s.from, from)
	}
}

// Handshake runs handshake if strangers has a place for it, and reports whether the peer at addr is authenticated. It logs
// and counts failures. handshake authenticates the peer, and must end when its context does.
func (s *Server) Handshake(ctx context.Context, addr, transport string, handshake func(context.Context) error) bool {
	err := s.limitHandshakes(ctx, neighbourhood(addr), handshake)
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

// refused counts a refused peer. It logs only the first few, then one each second, because logs take disk space.
func (s *Server) refused(code protocol.Code, log func()) {
	s.Refused(code)
	s.refusals.Do(log)
}

// limitHandshakes runs handshake if strangers has a place for it.
func (s *Server) limitHandshakes(ctx context.Context, from string, handshake func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	st, err := s.strangers.enter(from, cancel)
	if err != nil {
		return err
	}
	defer s.strangers.leave(from, st)
	if err = handshake(ctx); err != nil && errors.Is(context.Cause(ctx), protocol.CodeBusy) {
		return context.Cause(ctx)
	}
	return err
}

// neighbourhood returns the network that one peer may control: an IPv4 address, or an IPv6 /64.
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
