package receiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/storage"
)

// If a sender comes with another plan for a stored dump, the dump gets a challenger (storage.Challengers). Sessions with
// the first plan continue the dump, and sessions with the other plan the challenger, one session at a time. When
// neither has a writer and the challenger is ahead, it becomes the dump. When no sender is expected any more, the one
// that is behind is deleted.

// reasonOther is the reason of a partial dump whose sender continued with another plan.
const reasonOther = "the sender went on with another plan, which got no further"

// openDump returns a writer for the dump, which it resumes or creates.
func (ss *session) openDump(ctx context.Context) (*dumpdir.Writer, error) {
	resume := storage.ResumeOptions{Takeover: true, Reopen: true}
	w, err := ss.cfg.Store.Resume(ctx, ss.ref, resume)
	if errors.Is(err, storage.ErrNotFound) {
		made, full := ss.account.ChargeDump(ctx)
		if full != nil {
			return nil, noSpace(full)
		}
		defer made()
		w, err = ss.cfg.Store.Create(ctx, ss.Meta(ss.ref.Host))
	}
	if errors.Is(err, storage.ErrExists) { // Resume moved a damaged dump away, and the challenger took its place
		w, err = ss.cfg.Store.Resume(ctx, ss.ref, resume)
	}
	if dumpdir.IsSealedDamage(err) {
		return ss.openBeside(ctx, resume, err)
	}
	return w, err
}

// openBeside returns a writer for the challenger, because the dump is sealed and damaged and must stay as it is. A
// crashed machine has one chance to deliver.
func (ss *session) openBeside(ctx context.Context, resume storage.ResumeOptions, damage error) (*dumpdir.Writer, error) {
	w, err := ss.cfg.Store.Challengers().Resume(ctx, ss.ref, resume)
	if errors.Is(err, storage.ErrNotFound) {
		w, err = ss.cfg.Store.Challengers().Create(ctx, ss.Meta(ss.ref.Host))
	}
	if err != nil {
		return nil, errors.Join(damage, err)
	}
	ss.log.Error("the sender of a sealed dump that is damaged came back; the dump stays as it is, and what comes is stored beside it",
		"to", w.Dir(), "error", damage)
	ss.second, ss.contested = true, true
	ss.other = "what is stored of this dump is damaged; it is kept until this one has as many pages"
	return w, nil
}

// asksForMore reports whether a dump at level has all kinds of pages of a dump at level stored, and more.
func asksForMore(level, stored uint8) bool {
	l, s := leftOutKinds(level), leftOutKinds(stored)
	return l&^s == 0 && l != s
}

// leftOutKinds returns the kinds of pages that a level leaves out of a plan. Zero pages do not count, because the sender
// finds them only when it reads them.
func leftOutKinds(level uint8) pages.DumpLevel {
	l := pages.DumpLevel(level) &^ pages.LevelZero
	if l&pages.LevelCachePrivate != 0 {
		l |= pages.LevelCache
	}
	return l
}

// OtherPlan continues with the challenger, or with a new one if W already is the challenger.
func (ss *session) OtherPlan(ctx context.Context, stored *dumpdir.PlanInfo) error {
	if !ss.second {
		return ss.openChallenger(ctx)
	}
	// No sender has that plan any more, and it is not ahead of the dump: otherwise it would have become the dump.
	ss.log.Warn("dropping a third plan", "pages", stored.Pages, "level", stored.DumpLevel, "present", ss.W.Progress().Present)
	return ss.newChallenger(ctx)
}

// openChallenger leaves the dump as it is and continues with its challenger.
func (ss *session) openChallenger(ctx context.Context) error {
	ss.other = ss.describeStored()
	ss.log.Warn("another plan comes of a dump", "note", ss.other)
	next, err := ss.cfg.Store.Challengers().Resume(ctx, ss.ref, storage.ResumeOptions{Takeover: true, Reopen: true})
	if errors.Is(err, storage.ErrNotFound) {
		return ss.newChallenger(ctx)
	}
	if err != nil {
		return err
	}
	return ss.switchTo(ctx, next)
}

// newChallenger continues with a new challenger, which replaces an old one.
func (ss *session) newChallenger(ctx context.Context) error {
	next, err := ss.cfg.Store.Challengers().Create(ctx, ss.Meta(ss.ref.Host))
	if err != nil {
		return err
	}
	return ss.switchTo(ctx, next)
}

// switchTo makes the challenger next the writer of the session, and gives it the log, which came before the plan.
func (ss *session) switchTo(ctx context.Context, next *dumpdir.Writer) error {
	old := ss.W
	ss.W, ss.second, ss.contested = next, true, true
	ss.view.opened(next)
	ss.counted = ss.present()
	return errors.Join(old.Close(), ss.copyLog(ctx))
}

// copyLog copies the log of the dump to the challenger, unless the challenger has one that is as long.
func (ss *session) copyLog(ctx context.Context) (err error) {
	d, err := ss.cfg.Store.Open(ctx, ss.ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	m := d.Manifest()
	if have := ss.W.Manifest().Bytes.Log; have > 0 && have >= m.Bytes.Log {
		return ss.UpdateMeta("")
	}
	if err := ss.RoomFor(ctx, intake.Log, m.Bytes.Log); err != nil {
		return err
	}
	log, err := d.OpenLog()
	if err == nil {
		err = errors.Join(ss.W.StoreLog(log), log.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return ss.UpdateMeta(m.PanicLine)
}

// describeStored returns the note to the sender about the dump with the other plan.
func (ss *session) describeStored() string {
	stored, _ := ss.W.Plan()
	p := ss.W.Progress()
	if p.Missing() == 0 {
		return fmt.Sprintf("a complete dump of another plan is stored (%d pages at level %d); it is kept until this one is complete, and has more",
			stored.Pages, stored.DumpLevel)
	}
	return fmt.Sprintf("another plan of this dump is stored (%d pages at level %d, %d here); it is kept until this one is ahead",
		stored.Pages, stored.DumpLevel, p.Present)
}

// standing is the progress of a dump, for the comparison of two plans.
type standing struct {
	pages    uint64
	complete bool
	damaged  bool // not compared: Resume decides what happens to it
	kept     bool // sealed and damaged: Resume does not change it
}

func standingOf(d *dumpdir.Dump) standing {
	p := d.Progress()
	return standing{
		pages: p.Present, complete: d.Manifest().Plan != nil && p.Missing() == 0, damaged: d.State() == dumpdir.StateDamaged,
		kept: dumpdir.IsSealedDamage(d.Damage()),
	}
}

// ahead reports whether s is better than first. It is the only rule for the comparison of plans: a dump with all its
// pages is better than one without, and then more pages are better. In a draw the first one stays, unless it is a
// sealed and damaged dump.
func (s standing) ahead(first standing) bool {
	switch {
	case s.damaged || first.damaged && !first.kept:
		return false
	case first.kept:
		return s.complete || s.pages >= max(first.pages, 1)
	case s.complete != first.complete:
		return s.complete
	}
	return s.pages > first.pages
}

// promoteAhead promotes the challenger of a dump if it is ahead, and reports whether the dump still has a challenger.
// Neither of them may have a writer.
func (s *Server) promoteAhead(ctx context.Context, ref storage.Ref) (contested bool, err error) {
	next, contested, err := standingIn(ctx, ref, s.cfg.Store.Challengers().Open)
	if err != nil || !contested {
		return false, err
	}
	first, there, err := standingIn(ctx, ref, s.cfg.Store.Open)
	if err != nil || !there || !next.ahead(first) {
		return true, err
	}
	s.cfg.Log.Warn("another plan of a dump is ahead and takes its place", "host", ref.Host, "dump", ref.ID,
		"pages", next.pages, "complete", next.complete, "pages_before", first.pages, "complete_before", first.complete)
	return false, s.cfg.Store.Challengers().Promote(ctx, ref)
}

// standingIn returns the standing of a dump or challenger. there is false if it does not exist.
func standingIn(ctx context.Context, ref storage.Ref, open func(context.Context, storage.Ref) (*dumpdir.Dump, error)) (st standing, there bool, err error) {
	d, err := open(ctx, ref)
	var damage *dumpdir.DamageError
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return st, false, nil
	case errors.As(err, &damage), errors.Is(err, dumpdir.ErrUnsupported):
		return standing{damaged: true}, true, nil
	case err != nil:
		return st, false, err
	}
	return standingOf(d), true, d.Close()
}

// sealedDump is the outcome of a dump for which no sender is expected any more.
type sealedDump struct {
	intake.Outcome
	wasSealed bool // before
}

// sealBest seals a dump that is not sealed. reason says why pages are missing, if any are. If the dump has a challenger,
// sealBest seals the better of the two and deletes the other. Neither of them may have a writer.
func (s *Server) sealBest(ctx context.Context, ref storage.Ref, reason string) (*sealedDump, error) {
	contested, err := s.promoteAhead(ctx, ref)
	if err != nil {
		return nil, err
	}
	w, err := s.cfg.Store.Resume(ctx, ref, storage.ResumeOptions{})
	if contested && errors.Is(err, storage.ErrNotFound) { // Resume moved the damaged dump away; the challenger takes its place now
		contested = false
		w, err = s.cfg.Store.Resume(ctx, ref, storage.ResumeOptions{})
	}
	if contested && dumpdir.IsSealedDamage(err) { // both stay
		contested = false
		w, err = s.cfg.Store.Challengers().Resume(ctx, ref, storage.ResumeOptions{})
	}
	if err != nil {
		return nil, err
	}
	end := &sealedDump{Outcome: intake.Outcome{Dir: w.Dir()}}
	_, end.wasSealed = w.Result()
	end.Result, err = w.Seal(ctx, reason)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	if contested {
		err = s.dropChallenger(ctx, ref)
	}
	return end, err
}

// dropChallenger deletes a challenger that is behind.
func (s *Server) dropChallenger(ctx context.Context, ref storage.Ref) error {
	st, _, err := standingIn(ctx, ref, s.cfg.Store.Challengers().Open)
	if err == nil {
		err = s.cfg.Store.Challengers().Drop(ctx, ref)
	}
	if err == nil {
		s.cfg.Log.Warn("another plan of a dump got less far and was dropped", "host", ref.Host, "dump", ref.ID, "pages", st.pages)
	}
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	return err
}

// sealBest seals the better of the dump and its challenger after the sender has finished one of them.
func (ss *session) sealBest(ctx context.Context) (intake.Outcome, error) {
	if err := ss.W.Close(); err != nil {
		return intake.Outcome{}, err
	}
	end, err := ss.srv.sealBest(ctx, ss.ref, reasonOther)
	if err != nil {
		return intake.Outcome{}, err
	}
	ss.contested = false
	ss.srv.sealed(end.State)
	return end.Outcome, nil
}
