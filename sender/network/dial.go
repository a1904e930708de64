package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// headStart is how long a connection over one link may take before another link is tried beside it. A SYN that got lost is
// repeated after a second.
const headStart = 1500 * time.Millisecond

// memory is what the Manager knows of links and hosts from earlier connections.
type memory struct {
	// over has the link of the last connection to a host. connected has it until the caller has judged the connection.
	over, connected map[string]int
	// doubts counts for a host the connections over a link that led to the wrong one.
	doubts map[string]map[int]int
	// owner is the link that has the static addresses.
	owner int
}

func newMemory() memory {
	return memory{over: map[string]int{}, connected: map[string]int{}, doubts: map[string]map[int]int{}}
}

// UnreachableError says that a host did not answer over any link.
type UnreachableError struct {
	// Tried says for each link what came of it.
	Tried []string
	errs  []error
}

// Error names each link.
func (e *UnreachableError) Error() string { return strings.Join(e.Tried, "; ") }

// Unwrap returns the errors of the connections.
func (e *UnreachableError) Unwrap() []error { return e.errs }

// Dial connects to HOST:PORT over the link that answers, with d's other options. It prefers the link that answered last, then
// those with the most specific route. If one does not answer, the others are tried beside it, and links that get an address
// meanwhile too. Names are looked up over each link. Dial returns when no link is left that may get its first address in
// seconds. The error is an *UnreachableError.
func (m *Manager) Dial(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
	if m.Config.Mode == "none" {
		return d.DialContext(ctx, network, addr)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	host = strings.ToLower(host)
	m.mu.Lock()
	delete(m.memory.connected, host)
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	r := &race{m: m, dialer: d, network: network, host: host, port: port, began: map[attempt]bool{}, asked: map[int]bool{}, ended: make(chan outcome)}
	nc, err := r.run(ctx)
	cancel()
	r.drain()
	if err != nil {
		m.passOn()
		m.diagnose()
	}
	return nc, err
}

// Doubt notes that the last connection to a host led to nobody that was meant. Another link is then tried first.
func (m *Manager) Doubt(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	host = strings.ToLower(host)
	index, ok := m.memory.connected[host]
	if !ok {
		return
	}
	delete(m.memory.connected, host)
	if m.memory.doubts[host] == nil {
		m.memory.doubts[host] = map[int]int{}
	}
	m.memory.doubts[host][index]++
}

// attempt is one address of the host over one link.
type attempt struct {
	index int
	addr  netip.Addr
}

// outcome is the end of an attempt, or of a lookup, which has no address.
type outcome struct {
	attempt
	conn  net.Conn
	addrs []netip.Addr
	err   error
}

// race is one Dial.
type race struct {
	m          *Manager
	dialer     *net.Dialer
	network    string
	host, port string

	addrs   []netip.Addr // all that are known of the host
	asked   map[int]bool // links over which the name was looked up
	began   map[attempt]bool
	running int // attempts
	lookups int
	ended   chan outcome
	errs    []error
	why     []string
}

// run returns the first connection. Attempts may still run when it returns.
func (r *race) run(ctx context.Context) (net.Conn, error) {
	r.addrs = r.m.known(r.host)
	next := time.NewTimer(0)
	defer next.Stop()
	for due := false; ; {
		r.m.mu.Lock()
		changed, ready, young := r.m.changed, r.m.ready(), r.m.young()
		r.m.mu.Unlock()
		r.lookUp(ctx, ready)
		// If there is nothing to begin when the time has come, a link that gets ready later begins at once.
		if (due || r.running == 0) && r.begin(ctx, ready) {
			due = false
			next.Reset(headStart)
		}
		if r.running == 0 && r.lookups == 0 && !young {
			return nil, r.failed()
		}
		select {
		case o := <-r.ended:
			if r.finish(o); o.conn != nil {
				return o.conn, nil
			}
		case <-next.C:
			due = true
		case <-changed:
		case <-ctx.Done():
			r.errs = append(r.errs, context.Cause(ctx))
			return nil, r.failed()
		}
	}
}

// young reports whether a link may get its first address soon. m.mu must be locked.
func (m *Manager) young() bool {
	return slices.ContainsFunc(m.all(), func(l *link) bool { return l.young && l.carrier })
}

// lookUp looks the name up over links that have not been asked, unless it is known.
func (r *race) lookUp(ctx context.Context, ready []*link) {
	if len(r.m.known(r.host)) > 0 {
		return
	}
	for _, l := range ready {
		if r.asked[l.index] {
			continue
		}
		r.asked[l.index] = true
		r.lookups++
		go func() {
			addrs, err := l.lookup(ctx, r.host)
			if err != nil {
				err = fmt.Errorf("%s: %w", l.name, err)
			}
			r.ended <- outcome{attempt: attempt{index: l.index}, addrs: addrs, err: err}
		}()
	}
}

// begin starts the best attempt that has not begun. It reports whether there was one.
func (r *race) begin(ctx context.Context, ready []*link) bool {
	l, a, ok := r.best(ready)
	if !ok {
		return false
	}
	r.began[a] = true
	r.running++
	go func() {
		nc, err := l.bound(r.dialer).DialContext(ctx, r.network, net.JoinHostPort(a.addr.String(), r.port))
		if err != nil {
			err = &linkError{l.name, a.addr, err}
		}
		r.ended <- outcome{attempt: a, conn: nc, err: err}
	}()
	return true
}

// best returns the attempt to begin next.
func (r *race) best(ready []*link) (*link, attempt, bool) {
	type choice struct {
		link *link
		attempt
		doubts, last, bits int
	}
	r.m.mu.Lock()
	over, doubts := r.m.memory.over[r.host], r.m.memory.doubts[r.host]
	r.m.mu.Unlock()
	var list []choice
	for _, l := range ready {
		for _, addr := range r.addrs {
			a := attempt{l.index, addr}
			if r.began[a] {
				continue
			}
			bits := routeTo(l.index, addr)
			if bits == noAddress {
				continue
			}
			c := choice{link: l, attempt: a, bits: bits, doubts: doubts[l.index]}
			if over == l.index {
				c.last = 1
			}
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		return nil, attempt{}, false
	}
	// The order is stable: links by index, addresses as the resolver orders them.
	first := slices.MinFunc(list, func(a, b choice) int {
		return cmp.Or(cmp.Compare(a.doubts, b.doubts), cmp.Compare(b.last, a.last), cmp.Compare(b.bits, a.bits))
	})
	return first.link, first.attempt, true
}

// finish notes the end of an attempt or a lookup.
func (r *race) finish(o outcome) {
	if o.addr.IsValid() {
		r.running--
	} else {
		r.lookups--
		for _, a := range o.addrs {
			if !slices.Contains(r.addrs, a) {
				r.addrs = append(r.addrs, a)
			}
		}
	}
	if o.err != nil {
		r.errs = append(r.errs, o.err)
		r.why = append(r.why, o.err.Error())
		return
	}
	if o.conn != nil {
		r.m.mu.Lock()
		r.m.memory.over[r.host], r.m.memory.connected[r.host] = o.index, o.index
		r.m.mu.Unlock()
	}
}

// drain waits until all attempts have ended, and closes connections that came too late.
func (r *race) drain() {
	for r.running+r.lookups > 0 {
		o := <-r.ended
		if o.addr.IsValid() {
			r.running--
		} else {
			r.lookups--
		}
		if o.conn != nil {
			_ = o.conn.Close()
		}
	}
}

// failed says what came of each link.
func (r *race) failed() *UnreachableError {
	e := &UnreachableError{Tried: slices.Clone(r.why), errs: r.errs}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	for _, l := range r.m.all() {
		tried := slices.ContainsFunc(r.errs, func(err error) bool {
			le, ok := errors.AsType[*linkError](err)
			return ok && le.link == l.name
		})
		switch {
		case tried:
		case l.carrier && len(l.from) > 0 && !r.tries(l.index):
			e.Tried = append(e.Tried, fmt.Sprintf("%s (%s): no address of %s to try", l.name, l.addrs(), r.host))
		case l.carrier && len(l.from) > 0:
			e.Tried = append(e.Tried, fmt.Sprintf("%s (%s): no answer", l.name, l.addrs()))
		default:
			e.Tried = append(e.Tried, l.name+": "+l.said())
		}
	}
	if r.m.absent != nil {
		e.Tried = append(e.Tried, r.m.absent.Error())
	}
	return e
}

func (r *race) tries(index int) bool {
	for a := range r.began {
		if a.index == index {
			return true
		}
	}
	return false
}

// linkError is a failure to connect over one link.
type linkError struct {
	link string
	addr netip.Addr
	err  error
}

// Error leaves out what net repeats.
func (e *linkError) Error() string {
	err := e.err
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return fmt.Sprintf("%s over %s: %v", e.addr, e.link, err)
}

func (e *linkError) Unwrap() error { return e.err }

// bound returns d for connections over the link only.
func (l *link) bound(d *net.Dialer) *net.Dialer {
	b := *d
	b.Control = func(network, address string, raw syscall.RawConn) error {
		var err error
		cerr := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), l.name) })
		if err := cmp.Or(cerr, err); err != nil {
			return err
		}
		if d.Control != nil {
			return d.Control(network, address, raw)
		}
		return nil
	}
	return &b
}
