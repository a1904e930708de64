package receiver

import (
	"context"
	"errors"

	"github.com/corehaul/corehaul/storage"
)

// claim is the right to write one dump. There is at most one holder. A new claim makes the last holder release its own.
type claim struct {
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the holder writes no more
}

// errForeign means that the dump id belongs to another host.
var errForeign = errors.New("another host has a dump with this id")

// claim makes the caller the holder of ref. It cancels the last holder, whose done the caller has to wait for. It fails if
// another host holds a dump with this id.
func (s *Server) claim(ref storage.Ref, cancel context.CancelCauseFunc) (mine, before *claim, err error) {
	mine = &claim{cancel: cancel, done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.claims {
		if other.ID == ref.ID && other.Host != ref.Host {
			return nil, nil, errForeign
		}
	}
	before = s.claims[ref]
	s.claims[ref] = mine
	if before != nil {
		before.cancel(errSuperseded)
	}
	return mine, before, nil
}

// release ends a claim. If no other holder has taken over the dump, it calls last before anybody sees the dump free, and
// reports true.
func (s *Server) release(ref storage.Ref, c *claim, last func()) bool {
	close(c.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claims[ref] != c {
		return false
	}
	delete(s.claims, ref)
	last()
	return true
}

// wait waits until the holder writes no more, or ctx is done.
func (c *claim) wait(ctx context.Context) error {
	if c == nil {
		return nil
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// claimed reports whether ref has a holder.
func (s *Server) claimed(ref storage.Ref) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claims[ref] != nil
}
