package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/corehaul/corehaul/hostname"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/receiver/admission"
	"github.com/corehaul/corehaul/storage"
)

// Peer is the authenticated other end of a connection.
type Peer struct {
	Host      string // name under which its dumps are stored
	Addr      string // source address, for people
	Transport string // "tls" or "ssh"
}

// Server runs the sessions of all senders.
type Server struct {
	cfg       Config
	shares    shares
	queue     *admission.Queue
	hello     *budget
	conns     chan struct{}        // one element for each open connection
	sealers   chan struct{}        // one element for each dump that is sealed without a slot
	perHost   *admission.HostLimit // sessions
	strangers *strangers
	refusals  rate.Sometimes // limits the logged refusals
	rules     *admission.Rules
	start     time.Time

	loops acceptLoops

	mu       sync.Mutex
	claims   map[storage.Ref]*claim
	live     map[*session]struct{}
	totals   Totals
	sessions sync.WaitGroup

	expiry *expiry
}

// New returns a Server. It seals dumps whose senders are gone only while Run runs.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	split := cfg.split()
	s := &Server{
		cfg: cfg, shares: split, start: time.Now(),
		hello:     newBudget(split.hello),
		conns:     make(chan struct{}, cfg.MaxConnections),
		sealers:   make(chan struct{}, split.slots),
		perHost:   admission.NewHostLimit(max(1, cfg.MaxConnections/2)),
		strangers: newStrangers(cfg.MaxConnections),
		refusals:  rate.Sometimes{First: 32, Interval: time.Second},
		claims:    map[storage.Ref]*claim{}, live: map[*session]struct{}{}, totals: Totals{Refused: map[string]uint64{}},
		expiry: newExpiry(),
	}
	s.rules = admission.NewRules(cfg.Rules, cfg.Room, cfg.Log)
	s.queue = admission.NewQueue(split.slots, cfg.MaxHostSessions, cfg.Room.FreeOrUnbounded)
	return s, nil
}

// Run takes over the arriving dumps of an earlier process. It seals each dump whose sender does not come back in time.
// It returns when ctx is done and all sessions have ended. The contexts of the sessions stop them, not ctx.
func (s *Server) Run(ctx context.Context) error {
	if err := s.scheduleUnsealed(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	var counts sync.WaitGroup
	counts.Go(func() { s.rules.Run(ctx) })
	s.expire(ctx)
	counts.Wait()
	s.sessions.Wait()
	return nil
}

// SetRules replaces the rules. Each must pass its Check. Sessions that wait are decided about again within seconds. What a session has
// been told to send stays.
func (s *Server) SetRules(rules []admission.Rule) { s.rules.Set(rules) }

// HandleConn runs the session of one sender over an authenticated connection and closes the connection. When ctx is done,
// the session commits what has arrived and tells the sender to come back. HandleConn has logged the error that it returns.
func (s *Server) HandleConn(ctx context.Context, conn net.Conn, peer Peer) error {
	s.sessions.Add(1)
	defer s.sessions.Done()
	defer func() { _ = conn.Close() }() // the session has sent everything
	if err := hostname.Check(peer.Host); err != nil {
		return s.turnAway(conn, peer, protocol.Errorf(protocol.CodeIdentity, "the name %.80q cannot be a directory: %w", peer.Host, err))
	}
	if !s.perHost.Acquire(peer.Host) {
		return s.turnAway(conn, peer, &protocol.Error{
			Code: protocol.CodeBusy, Text: fmt.Sprintf("host %s has %d sessions already", peer.Host, s.perHost.Limit()), RetryAfter: intake.BusyRetryAfter,
		})
	}
	defer s.perHost.Release(peer.Host)
	ss := newSession(s, conn, peer)
	s.enter(ss)
	defer s.exit(ss)
	return ss.run(ctx)
}

// turnAway refuses a session before the peer has sent anything, and tells the peer why.
func (s *Server) turnAway(conn net.Conn, peer Peer, refusal *protocol.Error) error {
	s.refused(refusal.Code, func() { s.logger(peer).Warn("refused a session", "code", string(refusal.Code), "error", refusal) })
	return errors.Join(refusal, protocol.NewConn(conn, protocol.Receiver).Shutdown(refusal, intake.Linger))
}

// logger returns the log for one peer.
func (s *Server) logger(peer Peer) *slog.Logger {
	return s.cfg.Log.With("peer", peer.Addr, "host", peer.Host, "transport", peer.Transport)
}
