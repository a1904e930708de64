package sender

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
)

// pipeline moves chunks from the dump to a connection:
//
//	producer -> work -> workers: read, find zeros, checksum, compress -> done -> writer
//	    ^------------------------------- free <------------------------------------|
//
// It uses no other memory than its slots, so the slowest part slows the others down. There is one pipeline for each dump
// and one run for each session.
type pipeline struct {
	src      *Source
	plan     *Plan
	workers  int
	slots    []*slot
	encoders []*encoder
	meter    *Meter
}

// localError is a failure of the sender itself. Another connection would not help.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

func newPipeline(src *Source, plan *Plan, workers int, meter *Meter) *pipeline {
	p := &pipeline{src: src, plan: plan, workers: workers, meter: meter}
	// One slot for each worker, one being written and one ready to be.
	for range workers + 2 {
		p.slots = append(p.slots, newSlot(plan.Params.PageSize))
	}
	for range workers {
		p.encoders = append(p.encoders, newEncoder(int(plan.Params.PageSize)))
	}
	return p
}

// run is one run of a pipeline over a connection.
type run struct {
	*pipeline
	// session is the connection. When its stop is done, no more chunks are produced, and those in the pipeline are sent.
	session          *session
	adaptive         *adaptiveEncoding
	tiers            uint8           // how many of the plan's tiers are wanted
	have             protocol.SeqSet // chunks that the receiver has
	free, work, done chan *slot
}

// send sends all wanted chunks that the receiver does not have. It returns nil when all are written or stop is done, a
// *localError if the dump cannot be read, and otherwise the error of the connection.
func (r *run) send(ctx context.Context) error {
	n := len(r.slots)
	r.free, r.work, r.done = make(chan *slot, n), make(chan *slot, n), make(chan *slot, n)
	for _, s := range r.slots {
		r.free <- s
	}
	g, ctx := errgroup.WithContext(ctx)
	// After an error of the producer, the chunks that it has produced are still sent.
	var local error
	g.Go(catchPanic(func() error {
		defer close(r.work)
		err := r.produce(ctx)
		if err != nil && ctx.Err() == nil {
			local = &localError{err}
			return nil
		}
		return err
	}))
	var working sync.WaitGroup
	for _, e := range r.encoders {
		working.Add(1)
		g.Go(catchPanic(func() error {
			defer working.Done()
			return r.encode(ctx, e)
		}))
	}
	g.Go(func() error {
		working.Wait()
		close(r.done)
		return nil
	})
	g.Go(catchPanic(func() error { return r.write(ctx) }))
	if err := g.Wait(); err != nil {
		return err
	}
	return local
}

// catchPanic turns a panic of f into a *localError. If the sender is PID 1, a panic would stop the machine without a
// report.
func catchPanic(f func() error) func() error {
	return func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = &localError{fmt.Errorf("internal error: %v\n%s", p, debug.Stack())}
			}
		}()
		return f()
	}
}

// produce gives the wanted chunks to the workers, in the order of the plan.
func (r *run) produce(ctx context.Context) error {
	return r.plan.each(ctx, r.tiers, func(tier uint8, seq uint64, extents []mem.Extent) error {
		if r.session.stop.Err() != nil {
			return errStop
		}
		if r.have.Contains(seq) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.session.stop.Done():
			return errStop
		case s := <-r.free:
			s.tier, s.chunk.Seq = tier, seq
			s.wanted = append(s.wanted[:0], extents...)
			r.work <- s // has room for all slots
			return nil
		}
	})
}

// encode reads and compresses the chunks from produce.
func (r *run) encode(ctx context.Context, e *encoder) error {
	for s := range r.work {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		raw := s.fill(r.src.image, e.raw, e.pageSize)
		s.data = uint64(len(raw))
		with, probe := r.adaptive.next()
		if err := r.encodeChunk(e, s, len(raw), with, probe); err != nil {
			return &localError{err}
		}
		r.done <- s
	}
	return nil
}

// encodeChunk encodes the first n bytes of e.raw, which are the data pages of s. For a probe, it does so with the strong encoding first.
func (r *run) encodeChunk(e *encoder, s *slot, n int, with protocol.Encoding, probe bool) error {
	var strong int
	var took time.Duration
	if probe {
		began := time.Now()
		size, err := e.size(&s.encoded, n, r.adaptive.strong)
		if err != nil {
			return err
		}
		strong, took = size, time.Since(began)
	}
	err := e.encode(&s.chunk, &s.encoded, n, with)
	if probe && err == nil {
		r.adaptive.probed(len(s.chunk.Payload), strong, took)
	}
	return err
}

// write sends the encoded chunks.
func (r *run) write(ctx context.Context) error {
	for {
		began := time.Now()
		var s *slot
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s = <-r.done:
		}
		if s == nil {
			return nil
		}
		ready := time.Now()
		r.meter.addLost(s.chunk.Seq, s.lost)
		if len(s.chunk.Extents) > 0 { // otherwise all pages of the chunk are lost
			if err := r.writeChunk(ctx, s); err != nil {
				return err
			}
		}
		r.adaptive.observe(traffic{
			bytes: max(uint64(len(s.chunk.Payload)), minCost), queued: r.session.queued(), unacked: r.session.flow.unacked(),
			network: time.Since(ready), encoder: ready.Sub(began),
		})
		r.free <- s
	}
}

func (r *run) writeChunk(ctx context.Context, s *slot) error {
	pages := uint64(s.chunk.DataPages() + s.chunk.ZeroPages())
	size := uint64(len(s.chunk.Payload))
	defer r.session.stall.start(r.session.soon)()
	err := r.session.flow.reserve(ctx, r.session.stop, s.chunk.Seq, flight{cost: size, pages: pages})
	if errors.Is(err, errStop) {
		return nil // stop is done, and the chunk is not sent
	}
	if err != nil {
		return err
	}
	if err := r.session.conn.Write(&s.chunk); err != nil {
		return err
	}
	r.meter.sent(s.tier, s.data)
	return nil
}
