package receiver

import (
	"context"
	"sync"

	"github.com/corehaul/corehaul/chunk"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
)

// pipeline takes the chunks of a session through three stages that run at the same
// time: the session's goroutine reads, workers decode, check and put, the committer
// fsyncs and acknowledges. So neither the disk nor a CPU holds up the line until the
// window is full.
type pipeline struct {
	ss     *session
	ctx    context.Context // of this part of the session
	cancel context.CancelCauseFunc
	gate   *byteGate // chunk payloads in memory
	jobs   chan *protocol.Chunk

	committer *intake.Committer
}

// readChunks takes chunks until FINISH, and returns it when all of them are durable.
func (ss *session) readChunks(ctx context.Context) (*protocol.Finish, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &pipeline{
		ss: ss, ctx: ctx, cancel: cancel, gate: newByteGate(ss.srv.shares.window),
		jobs: make(chan *protocol.Chunk), committer: ss.newCommitter(),
	}
	var workers, committer sync.WaitGroup
	for range ss.srv.shares.workers {
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
		msg, err := p.ss.in.nextWithin(p.ctx, p.ss.cfg.StallTimeout)
		if err != nil {
			return nil, err
		}
		chunk, ok := msg.(*protocol.Chunk)
		if !ok {
			return asFinish(msg, nil, "CHUNK or FINISH")
		}
		if err := p.gate.take(p.ctx, int64(len(chunk.Payload))); err != nil {
			return nil, err
		}
		select {
		case p.jobs <- chunk:
		case <-p.ctx.Done():
			return nil, context.Cause(p.ctx)
		}
	}
}

// work decodes, checks and puts chunks. The first error ends the session; chunks
// that are read after it are dropped.
func (p *pipeline) work() {
	conv, err := intake.NewConverter(int(p.ss.hello.PageSize), p.ss.cfg.Codec)
	if err != nil {
		p.cancel(err)
	} else {
		defer conv.Close()
	}
	for chunk := range p.jobs {
		size := int64(len(chunk.Payload))
		if p.ctx.Err() == nil {
			if err := p.put(conv, chunk); err != nil {
				p.cancel(err)
			}
		}
		p.ss.wire.Release(chunk)
		p.gate.give(size)
		p.note(size)
	}
}

// note tells the committer that there is something for it.
func (p *pipeline) note(size int64) {
	p.ss.srv.received(size)
	p.committer.Note(size)
}

func (p *pipeline) put(conv *intake.Converter, chunk *protocol.Chunk) error {
	stored, err := conv.Convert(chunk)
	if err != nil {
		return err
	}
	if err := p.ss.checkReserve(p.ctx, uint64(len(stored.Data))); err != nil {
		return err
	}
	if err := p.ss.w.PutChunk(stored); err != nil {
		return &intake.ChunkError{Seq: chunk.Seq, Err: err}
	}
	return nil
}

// newCommitter leaves half of the window for what comes while a commit runs.
func (ss *session) newCommitter() *intake.Committer {
	bytes := int64(min(ss.cfg.CommitBytes, uint64(ss.srv.shares.window)/2)) //nolint:gosec // window is positive and small
	return intake.NewCommitter(bytes, ss.cfg.CommitInterval)
}

// commit fsyncs and acknowledges what was put, as long as the session goes on.
func (p *pipeline) commit() {
	err := p.committer.Run(func() error {
		if p.ctx.Err() != nil {
			return nil
		}
		return p.commitNow()
	})
	if err != nil {
		p.cancel(err)
	}
}

func (p *pipeline) commitNow() error {
	done, err := p.ss.w.Commit()
	if err != nil {
		return err
	}
	p.ss.view.note(p.ss.w.Progress().Present)
	if err := p.ss.ack(done); err != nil {
		return err
	}
	return p.ss.checkShare(p.ctx)
}

// ack tells the sender which chunks are durable.
func (ss *session) ack(done []chunk.SeqRange) error {
	return intake.Ack(done, func(a *protocol.Ack) error { return ss.write(a) })
}
