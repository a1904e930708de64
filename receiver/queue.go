package receiver

import (
	"container/list"
	"context"
	"sync"
)

// queue lets a fixed number of sessions in at a time and keeps the others in the
// order they came: first come, first served, so nobody starves.
type queue struct {
	mu      sync.Mutex
	free    int
	waiting list.List // of *ticket
}

func newQueue(slots int) *queue { return &queue{free: slots} }

// ticket is one session's place in the queue.
type ticket struct {
	q     *queue
	elem  *list.Element // nil once it is in, or has left
	in    bool
	place int
	ready chan struct{} // closed when it is let in
	moved chan struct{} // holds one signal when the place changed
}

// join takes a place in the queue. The caller must leave the ticket in the end.
func (q *queue) join() *ticket {
	t := &ticket{q: q, ready: make(chan struct{}), moved: make(chan struct{}, 1)}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.free > 0 && q.waiting.Len() == 0 {
		q.free--
		t.in = true
		close(t.ready)
		return t
	}
	t.elem = q.waiting.PushBack(t)
	t.place = q.waiting.Len()
	return t
}

// leave gives the slot or the place back. It may be called twice.
func (t *ticket) leave() {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	switch {
	case t.in:
		t.in = false
		t.q.free++
		t.q.letIn()
	case t.elem != nil:
		t.q.waiting.Remove(t.elem)
		t.elem = nil
		t.q.renumber()
	}
}

// letIn hands free slots to the first in the queue. The mutex is held.
func (q *queue) letIn() {
	for q.free > 0 && q.waiting.Len() > 0 {
		t, ok := q.waiting.Remove(q.waiting.Front()).(*ticket)
		if !ok {
			continue // the list holds nothing else
		}
		q.free--
		t.elem, t.in, t.place = nil, true, 0
		close(t.ready)
	}
	q.renumber()
}

// renumber tells everyone whose place changed. The mutex is held.
func (q *queue) renumber() {
	place := 0
	for e := q.waiting.Front(); e != nil; e = e.Next() {
		place++
		t, ok := e.Value.(*ticket)
		if !ok || t.place == place {
			continue
		}
		t.place = place
		select {
		case t.moved <- struct{}{}:
		default: // the signal before is not read yet; it reads the newest place
		}
	}
}

// position returns the place in the queue, 1 for the next to be let in, 0 inside.
func (t *ticket) position() int {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	return t.place
}

// length returns how many wait.
func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting.Len()
}

// byteGate bounds the bytes a session holds in memory at one time. Its one user
// that waits is the session's reader, so it needs no fairness.
type byteGate struct {
	mu    sync.Mutex
	free  int64
	wake  chan struct{} // holds one signal after a give
	limit int64
}

func newByteGate(limit int64) *byteGate {
	return &byteGate{free: limit, limit: limit, wake: make(chan struct{}, 1)}
}

// take waits for n bytes, which count as no more than the limit, so that no request
// waits for ever. It fails with the cause of ctx's end.
func (g *byteGate) take(ctx context.Context, n int64) error {
	n = min(n, g.limit)
	for {
		g.mu.Lock()
		if g.free >= n {
			g.free -= n
			g.mu.Unlock()
			return nil
		}
		g.mu.Unlock()
		select {
		case <-g.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// give returns n bytes that take handed out.
func (g *byteGate) give(n int64) {
	g.mu.Lock()
	g.free += min(n, g.limit)
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}
