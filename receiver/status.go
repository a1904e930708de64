package receiver

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/protocol"
)

// Status is the state of a Server, for people and programs. Its JSON is that of "corehaul status --json". Sizes are in
// bytes, times in RFC 3339.
type Status struct {
	Tool    string    `json:"tool"`
	Started time.Time `json:"started"`
	Now     time.Time `json:"now"`
	// Sessions has the sessions of all senders that have sent HELLO, the oldest first.
	Sessions []SessionStatus `json:"sessions"`
	// Queue has the ids of waiting dumps, in order.
	Queue []string `json:"queue"`
	// Gone has the dumps whose senders are gone, the one that is sealed first first.
	Gone   []GoneStatus `json:"gone"`
	Space  SpaceStatus  `json:"space"`
	Memory MemoryStatus `json:"memory"`
	Limits LimitStatus  `json:"limits"`
	Totals Totals       `json:"totals"`
}

// SessionStatus is one session.
type SessionStatus struct {
	Host      string    `json:"host"`
	ID        string    `json:"id"` // of the dump; empty before HELLO
	Peer      string    `json:"peer"`
	Transport string    `json:"transport"`
	State     string    `json:"state"`
	Since     time.Time `json:"since"` // of the state
	Started   time.Time `json:"started"`
	Place     int       `json:"place,omitempty"`  // in the queue, from 1
	Reason    string    `json:"reason,omitempty"` // why it waits
	PanicLine string    `json:"panic_line,omitempty"`
	Pages     uint64    `json:"pages"`               // durable ones
	Planned   uint64    `json:"planned"`             // pages of the plan; 0 when not known
	Bytes     uint64    `json:"bytes"`               // of vmcore
	PageSize  uint32    `json:"page_size"`           // bytes
	PageRate  float64   `json:"pages_per_sec"`       // over the last seconds
	LeftMsec  int64     `json:"left_msec,omitempty"` // time until all pages are there, at PageRate; 0 when not known
	Needs     uint64    `json:"needs"`               // bytes that it still needs
}

// GoneStatus is a dump that is not sealed, and waits for its sender to come back.
type GoneStatus struct {
	Host    string    `json:"host"`
	ID      string    `json:"id"`
	Since   time.Time `json:"since"`   // when the wait began: the connection broke, or the server started
	Until   time.Time `json:"until"`   // when the dump is sealed with what it has
	Pages   uint64    `json:"pages"`   // durable ones
	Planned uint64    `json:"planned"` // pages of the plan; 0 when not known
}

// SpaceStatus is the room of the store. Total is 0 for a store without a limit.
type SpaceStatus struct {
	Total    uint64 `json:"total"`
	Free     uint64 `json:"free"`
	Reserve  uint64 `json:"reserve"`  // free space that dumps leave
	Reserved uint64 `json:"reserved"` // space that running dumps still need
	Error    string `json:"error,omitempty"`
}

// MemoryStatus is the division of the memory.
type MemoryStatus struct {
	Limit     uint64 `json:"limit"`
	Hello     uint64 `json:"hello"`      // for sessions that are not admitted
	HelloUsed uint64 `json:"hello_used"` // used part of Hello
	Window    uint64 `json:"window"`     // page data in flight of each admitted session
}

// LimitStatus has the limits. 0 means none.
type LimitStatus struct {
	Active       int    `json:"active"`
	ActiveUsed   int    `json:"active_used"`
	HostSessions int    `json:"host_sessions"`
	HostBytes    uint64 `json:"host_bytes"`
	HostDumps    int    `json:"host_dumps"`
	Connections  int    `json:"connections"`
	Connected    int    `json:"connected"`
	Rules        int    `json:"rules"`
}

// Totals count since the start.
type Totals struct {
	Sessions  uint64            `json:"sessions"`
	Complete  uint64            `json:"complete"` // sealed dumps, by state
	Partial   uint64            `json:"partial"`
	LogOnly   uint64            `json:"log_only"`
	BrokenOff uint64            `json:"broken_off"` // sessions whose connection broke
	Bytes     uint64            `json:"bytes"`      // of received chunks
	Refused   map[string]uint64 `json:"refused"`    // sessions and connections, by code
}

func (s *Server) enter(ss *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[ss] = struct{}{}
	s.totals.Sessions++
}

func (s *Server) exit(ss *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, ss)
}

// Refused counts a refusal, for Status.
func (s *Server) Refused(code protocol.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.totals.Refused[string(code)]++
}

// received counts bytes of chunks.
func (s *Server) received(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.totals.Bytes += uint64(n)
}

// sealed counts a seal.
func (s *Server) sealed(state dumpdir.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case dumpdir.StateComplete:
		s.totals.Complete++
	case dumpdir.StatePartial:
		s.totals.Partial++
	case dumpdir.StateLogOnly:
		s.totals.LogOnly++
	}
}

// count counts how the session ended.
func (ss *session) count(cause error) {
	s := ss.srv
	switch {
	case cause == nil, ss.Dismissed, ss.Outcome != nil && isGone(cause):
	case isGone(cause):
		s.mu.Lock()
		s.totals.BrokenOff++
		s.mu.Unlock()
	default:
		s.Refused(wireError(cause).Code)
	}
}

// Status returns the server's present state.
func (s *Server) Status(ctx context.Context) Status {
	st := Status{
		Tool: s.cfg.Tool, Started: s.start, Now: time.Now(), Sessions: []SessionStatus{}, Queue: []string{}, Gone: s.expiry.gone(),
		Space: s.spaceStatus(ctx), Memory: s.memoryStatus(), Limits: s.limitStatus(),
	}
	live := s.snapshot(&st)
	for _, ss := range live {
		st.Sessions = append(st.Sessions, ss.status(st.Now))
	}
	slices.SortFunc(st.Sessions, func(a, b SessionStatus) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.Peer, b.Peer))
	})
	waiting := slices.DeleteFunc(slices.Clone(st.Sessions), func(s SessionStatus) bool { return s.Place == 0 })
	slices.SortFunc(waiting, func(a, b SessionStatus) int { return cmp.Compare(a.Place, b.Place) })
	for _, w := range waiting {
		st.Queue = append(st.Queue, w.Host+"/"+w.ID)
	}
	return st
}

// snapshot copies the totals and returns the sessions.
func (s *Server) snapshot(st *Status) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Totals = s.totals
	st.Totals.Refused = map[string]uint64{}
	for code, n := range s.totals.Refused {
		st.Totals.Refused[code] = n
	}
	live := make([]*session, 0, len(s.live))
	for ss := range s.live {
		live = append(live, ss)
	}
	return live
}

func (s *Server) spaceStatus(ctx context.Context) SpaceStatus {
	st := SpaceStatus{Reserve: s.cfg.Room.Reserve, Reserved: s.queue.Reserved("", nil)}
	space, err := s.cfg.Store.Space(ctx)
	if err != nil {
		st.Error = err.Error()
	}
	st.Total, st.Free = space.Total, space.Free
	return st
}

func (s *Server) memoryStatus() MemoryStatus {
	hello := s.shares.hello

	return MemoryStatus{
		Limit: s.cfg.Memory, Hello: uint64(hello), HelloUsed: uint64(max(0, hello-s.hello.available())), Window: uint64(s.shares.window),
	}
}

func (s *Server) limitStatus() LimitStatus {
	return LimitStatus{
		Active: s.shares.slots, ActiveUsed: s.queue.Admitted(), HostSessions: s.cfg.MaxHostSessions, HostBytes: s.cfg.Room.HostBytes, HostDumps: s.cfg.Room.HostDumps,
		Connections: cap(s.conns), Connected: len(s.conns), Rules: s.rules.Len(),
	}
}

// status returns the state of the session. It is safe for concurrent use.
func (ss *session) status(now time.Time) SessionStatus {
	v := &ss.view
	v.mu.Lock()
	defer v.mu.Unlock()
	st := SessionStatus{
		Host: ss.peer.Host, Peer: ss.peer.Addr, Transport: ss.peer.Transport, Started: ss.Began, State: v.state, Since: v.since,
		Planned: v.pages, Reason: v.reason,
	}
	if v.ticket != nil {
		st.Place, _ = v.ticket.Position()
		st.Needs = v.ticket.Needs()
	}
	if v.w != nil {
		m, p := v.w.Manifest(), v.w.Progress()
		st.ID, st.PanicLine = m.ID, m.PanicLine
		st.Pages, st.Bytes = p.Present, uint64(max(0, p.Bytes))
		if m.Plan != nil {
			st.PageSize = uint32(m.Plan.PageSize)
		}
		st.PageRate = v.rate(look{now, p.Present})
		st.LeftMsec = leftMsec(st.PageRate, st.Planned, st.Pages)
	}
	return st
}

// maxLeftMsec is the longest time that is told, 100 days: a longer one only says that nothing moves.
const maxLeftMsec = 100 * 24 * 3600 * 1000

// leftMsec is the time that the missing pages take at a rate in pages a second; 0 when that is not known.
func leftMsec(rate float64, planned, pages uint64) int64 {
	if rate <= 0 || planned <= pages {
		return 0
	}
	if left := float64(planned-pages) / rate * 1000; left < maxLeftMsec {
		return int64(left)
	}
	return 0
}
