package receiver

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// acceptLoops are the running loops of Serve.
type acceptLoops struct {
	mu  sync.Mutex
	all map[*acceptLoop]struct{}
}

// acceptLoop is a loop that accepts connections. A deadline in the past wakes it from Accept without a connection.
type acceptLoop struct {
	l        net.Listener
	deadline interface{ SetDeadline(t time.Time) error } // nil if the listener has none

	mu    sync.Mutex
	asked chan struct{} // closed when the loop answers; nil if nobody asks
}

func (a *acceptLoops) enter(l net.Listener) *acceptLoop {
	loop := &acceptLoop{l: l}
	loop.deadline, _ = l.(interface{ SetDeadline(t time.Time) error })
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[*acceptLoop]struct{}{}
	}
	a.all[loop] = struct{}{}
	return loop
}

func (a *acceptLoops) exit(loop *acceptLoop) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, loop)
	loop.answer()
}

// ask wakes the loop, and returns what is closed when the loop has answered.
func (l *acceptLoop) ask() (<-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked == nil {
		l.asked = make(chan struct{})
	}
	return l.asked, l.deadline.SetDeadline(time.Unix(1, 0))
}

// answer lets the loop accept again. It reports whether somebody has asked.
func (l *acceptLoop) answer() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked == nil {
		return false
	}
	close(l.asked)
	l.asked = nil
	_ = l.deadline.SetDeadline(time.Time{}) // fails only on a closed listener, and then Accept says so
	return true
}

// Alive returns nil when every loop that accepts connections has come round, and when sessions can begin and be admitted: what they
// lock is free. The error says what did not answer before ctx was done. It disturbs neither connections nor sessions.
func (s *Server) Alive(ctx context.Context) error {
	free := make(chan struct{})
	go func() { // it ends when the locks are free
		s.snapshot(new(Status))
		s.queue.Waiting()
		s.rules.Len()
		close(free)
	}()
	select {
	case <-free:
	case <-ctx.Done():
		return fmt.Errorf("receiver: sessions are locked out: %w", context.Cause(ctx))
	}
	for _, loop := range s.loops.list() {
		answered, err := loop.ask()
		if err != nil {
			continue // it is closed: the server is stopping
		}
		select {
		case <-answered:
		case <-ctx.Done():
			return fmt.Errorf("receiver: no connections are accepted on %s: %w", loop.l.Addr(), context.Cause(ctx))
		}
	}
	return nil
}

// list returns the loops that can be woken.
func (a *acceptLoops) list() (list []*acceptLoop) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for loop := range a.all {
		if loop.deadline != nil {
			list = append(list, loop)
		}
	}
	return list
}
