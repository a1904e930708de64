package intake

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/corehaul/corehaul/protocol"
)

// pipeline takes the chunks of a session through three concurrent stages: the session's goroutine reads, workers
// decode, check and put, and the committer fsyncs and acknowledges. So the network does not wait for the disk or a
// CPU before the window is full.
type pipeline struct {
	s      *Session
	ctx    context.Context // of this part of the session
	cancel context.CancelCauseFunc
	memory *semaphore.Weighted // bytes of chunk payloads
	jobs   chan *protocol.Chunk

	committer *committer
}

// readChunks takes chunks until FINISH. It returns FINISH when all chunks are put, and durable unless the seal is to commit them.
func (s *Session) readChunks(ctx context.Context) (*protocol.Finish, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &pipeline{
		s: s, ctx: ctx, cancel: cancel, memory: semaphore.NewWeighted(s.cfg.Window),
		jobs: make(chan *protocol.Chunk), committer: newCommitter(s.cfg.CommitBytes, s.cfg.CommitInterval, !s.cfg.SealCommits),
	}
	var workers, committer sync.WaitGroup
	for range s.cfg.Workers {
		workers.Go(p.work)
	}
	committer.Go(p.commit)
	finish, err := p.read()
	if err != nil {
		cancel(err)
	}
	close(p.jobs)
	workers.Wait()
	p.committer.End()
	committer.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return finish, nil
}

// read hands chunks to the workers.
func (p *pipeline) read() (*protocol.Finish, error) {
	for {
		msg, err := p.s.in.nextWithin(p.ctx, p.s.cfg.StallTimeout)
		if err != nil {
			return nil, err
		}
		chunk, ok := msg.(*protocol.Chunk)
		if !ok {
			return asFinish(msg, nil, "CHUNK or FINISH")
		}
		if p.memory.Acquire(p.ctx, p.weight(chunk)) != nil {
			return nil, context.Cause(p.ctx)
		}
		select {
		case p.jobs <- chunk:
		case <-p.ctx.Done():
			return nil, context.Cause(p.ctx)
		}
	}
}

// weight is the share of the window that a chunk takes: never more than the whole window, or it would wait for ever.
func (p *pipeline) weight(chunk *protocol.Chunk) int64 {
	return min(int64(len(chunk.Payload)), p.s.cfg.Window)
}

// work decodes, checks and puts chunks. The first error ends the session. work drops the chunks that are read after
// it.
func (p *pipeline) work() {
	conv, err := newConverter(int(p.s.Hello.PageSize), p.s.cfg.Codec)
	if err != nil {
		p.cancel(err)
	} else {
		defer conv.Close()
	}
	for chunk := range p.jobs {
		if p.ctx.Err() == nil {
			if err := p.put(conv, chunk); err != nil {
				p.cancel(err)
			}
		}
		size, weight := int64(len(chunk.Payload)), p.weight(chunk)
		p.s.wire.Release(chunk)
		p.memory.Release(weight)
		p.s.policy.Received(size)
		p.committer.Note(size)
	}
}

func (p *pipeline) put(conv *converter, chunk *protocol.Chunk) error {
	stored, err := conv.Convert(chunk)
	if err != nil {
		return err
	}
	if err = p.s.policy.RoomFor(p.ctx, Pages, int64(len(stored.Data))); err == nil {
		err = p.s.W.PutChunk(stored)
	}
	if err != nil {
		return &ChunkError{Seq: chunk.Seq, Err: err}
	}
	return nil
}

// commit fsyncs and acknowledges chunks while the session runs.
func (p *pipeline) commit() {
	err := p.committer.Run(func() error {
		if p.ctx.Err() != nil {
			return nil
		}
		if err := p.s.Commit(); err != nil {
			return err
		}
		return p.s.policy.Committed(p.ctx)
	})
	if err != nil {
		p.cancel(err)
	}
}

// Commit makes the chunks durable that were put, and acknowledges them. It may be called from any goroutine.
func (s *Session) Commit() error {
	done, err := s.W.Commit()
	if err != nil {
		return err
	}
	return ack(done, func(a *protocol.Ack) error { return s.Write(a) })
}
