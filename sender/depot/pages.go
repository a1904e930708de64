package depot

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
)

// When what was put is made durable: after so much page data or so long, whatever comes first.
const (
	commitBytes    = window / 2
	commitInterval = 500 * time.Millisecond
)

// takePages is the part of a session in which pages come, up to FINISH.
func (s *session) takePages(ctx context.Context) (*protocol.Finish, error) {
	err := s.wire.Write(&protocol.Welcome{
		Tool: s.Tool, Host: s.host, Collect: protocol.CollectAll, WindowBytes: window,
		Encodings: intake.Encodings.Common(s.hello.Encodings), HaveChunks: s.w.Progress().Chunks,
	})
	if err != nil {
		return nil, err
	}
	if finish, err := s.takePlan(ctx); err != nil || finish != nil {
		return finish, err
	}
	if err := s.wire.Write(&protocol.PlanOK{Have: intake.Have(s.w), Note: protocol.CleanText(s.Note, maxText)}); err != nil {
		return nil, err
	}
	return s.takeChunks(ctx)
}

// takePlan takes the plan, and stores it unless it is stored. A sender that gives up meanwhile sends FINISH.
func (s *session) takePlan(ctx context.Context) (*protocol.Finish, error) {
	var builder *dumpdir.PlanBuilder
	stored, known := s.w.Plan()
	if !known {
		facts := intake.Facts(s.hello, s.began, codec)
		facts.Notes, facts.RAM = s.notes, s.ram
		var err error
		if builder, err = s.w.StartPlan(facts); err != nil {
			return nil, err
		}
		defer builder.Abort() // which does nothing after Finish
	}
	runs := protocol.NewRunDecoder(s.hello.Params())
	for {
		m, err := s.wire.Read()
		if err != nil {
			return nil, err
		}
		switch m := m.(type) {
		case *protocol.Plan:
			err = runs.Decode(m.Data, func(r protocol.Run) error {
				if known {
					return nil
				}
				return builder.Add(r.Extent)
			})
		case *protocol.PlanEnd:
			return nil, s.endPlan(ctx, m, runs, builder, &stored)
		case *protocol.Finish:
			return m, nil
		default:
			err = outOfOrder(m, "PLAN")
		}
		if err != nil {
			return nil, err
		}
	}
}

// endPlan checks the plan, and compares it with the one that is stored or stores it. builder is nil when one is.
func (s *session) endPlan(ctx context.Context, m *protocol.PlanEnd, runs *protocol.RunDecoder, builder *dumpdir.PlanBuilder, stored *dumpdir.PlanInfo) error {
	sum := runs.Sum()
	if err := sum.Check(m); err != nil {
		return err
	}
	if err := intake.CheckPlan(m, s.ram); err != nil {
		return err
	}
	end := intake.PlanEnd(m)
	if builder != nil {
		return s.busy(ctx, "the plan is laid out", func() error { return builder.Finish(end) })
	}
	if stored.Hash == end.Hash && stored.Pages == end.Pages && stored.Chunks == end.Chunks {
		return nil
	}
	e := protocol.Errorf(protocol.CodePlanMismatch, "%s has another plan, of %d pages at level %d", s.w.Dir(), stored.Pages, stored.DumpLevel)
	e.Hint = fmt.Sprintf("send it with --level %d, or move that directory away", stored.DumpLevel)
	return e
}

// takeChunks takes chunks until FINISH, and returns it when all of them are durable.
func (s *session) takeChunks(ctx context.Context) (*protocol.Finish, error) {
	conv, err := intake.NewConverter(int(s.hello.PageSize), codec)
	if err != nil {
		return nil, err
	}
	defer conv.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := intake.NewCommitter(commitBytes, commitInterval)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(s.commit); err != nil {
			cancel(err)
			// The reader may wait for a chunk that the sender, without acks, cannot send.
			_ = s.wire.WriteError(s.lastWord(err))
		}
	})
	finish, err := s.readChunks(ctx, conv, c)
	c.End()
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return finish, err
}

func (s *session) readChunks(ctx context.Context, conv *intake.Converter, c *intake.Committer) (*protocol.Finish, error) {
	var left room
	for {
		m, err := s.wire.Read()
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		chunk, ok := m.(*protocol.Chunk)
		if !ok {
			finish, ok := m.(*protocol.Finish)
			if !ok {
				return nil, outOfOrder(m, "CHUNK or FINISH")
			}
			return finish, nil
		}
		size := int64(len(chunk.Payload))
		stored, err := conv.Convert(chunk)
		if err == nil {
			if err = left.take(s, stored); err == nil {
				err = s.w.PutChunk(stored)
			}
			if err != nil {
				err = &intake.ChunkError{Seq: chunk.Seq, Err: err}
			}
		}
		s.wire.Release(chunk)
		if err != nil {
			return nil, err
		}
		c.Note(size)
	}
}

// commit makes durable what was put, and tells the sender.
func (s *session) commit() error {
	done, err := s.w.Commit()
	if err != nil {
		return err
	}
	return intake.Ack(done, func(a *protocol.Ack) error { return s.wire.Write(a) })
}
