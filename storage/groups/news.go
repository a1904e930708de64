package groups

import (
	"context"
	"hash/maphash"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// News logs a line for each dump that begins a group, or that is the first regression of a resolved one, and notes regressions in the state.
//
// It hears of new reports, and looks at the index then. A look takes time that grows with the store, so the pause after it grows too: it uses
// at most a hundredth of a CPU, whatever comes. Dumps that other processes store are noticed at the next look, after ten minutes at most.
//
// Dumps that were there at the start are no news, except for those that were arriving. Regressions are, if the state does not have them.
type News struct {
	Store NewsSource
	Dir   string // of the state
	Log   *slog.Logger

	seed  maphash.Seed
	known map[uint64]bool // hashes of the dumps whose groups were looked at; nil before the first look
	said  map[string]bool // signatures whose regressions were told and are not in the state, which may be read-only
	error string          // that was told last
}

// NewsSource is the store of the dumps.
type NewsSource interface {
	Source
	Subscribe(to storage.Event) (dumps <-chan storage.Ref, cancel func())
}

const (
	// restShare is how many times as long as a look the pause after it is.
	restShare = 100
	minRest   = time.Second
	// lookEvery is the longest pause between two looks.
	lookEvery = 10 * time.Minute
)

// Run logs news until ctx is done.
func (n *News) Run(ctx context.Context) {
	n.seed = maphash.MakeSeed()
	reported, cancel := n.Store.Subscribe(storage.Reported)
	defer cancel()
	next := time.NewTimer(0)
	defer next.Stop()
	var rested time.Time
	for ctx.Err() == nil {
		select {
		case <-reported: // what it is about, the look finds out
			next.Reset(time.Until(rested))
		case <-next.C:
			begin := time.Now()
			n.fail(ctx, n.look(ctx, begin))
			end := time.Now()
			rested = end.Add(max(minRest, restShare*end.Sub(begin)))
			next.Reset(max(lookEvery, rested.Sub(end)))
		case <-ctx.Done():
		}
	}
}

// fail logs an error, unless it is that of the last look.
func (n *News) fail(ctx context.Context, err error) {
	if err == nil {
		n.error = ""
	} else if text := err.Error(); text != n.error && ctx.Err() == nil {
		n.error = text
		n.Log.Error("groups: new crashes and regressions are not told, or not noted; trying again", "error", err)
	}
}

// look reads the index once and logs what is new since the last look.
func (n *News) look(ctx context.Context, now time.Time) error {
	st, err := Read(n.Dir)
	if err != nil {
		return err // a muted group would be new
	}
	l := look{news: n, builder: NewBuilder(st, now), known: map[uint64]bool{}, old: map[string]bool{}}
	if err := each(ctx, n.Store, l.add); err != nil {
		return err
	}
	gs := l.builder.Groups()
	l.tell(gs)
	n.known = l.known
	n.tellRegressions(gs)
	return gs.note(n.Dir, st)
}

// look is one look at the index.
type look struct {
	news    *News
	builder *Builder
	known   map[uint64]bool
	old     map[string]bool    // signatures of dumps that are no news
	fresh   []storage.Sighting // dumps that are, the newest first
}

func (l *look) add(s *storage.Sighting) {
	l.builder.Add(s, true)
	sig, hash := l.builder.signature(s), maphash.Comparable(l.news.seed, s.Ref)
	first := l.news.known == nil && s.State != dumpdir.StateArriving
	switch {
	case l.news.known[hash] || first:
		l.known[hash], l.old[sig] = true, true
	case sig == "": // until its report comes, if any does
	case len(l.fresh) < MaxKnown:
		l.fresh = append(l.fresh, *s)
		l.known[hash] = true
	}
}

// tell logs the groups that have new dumps only. The oldest of these began the group.
func (l *look) tell(gs *Groups) {
	told := map[*Group]bool{}
	for i := range slices.Backward(l.fresh) {
		s := &l.fresh[i]
		g := gs.Of(s)
		if g == nil || told[g] {
			continue
		}
		told[g] = true
		if g.Status != StatusNew || len(g.Changes) > 0 || slices.ContainsFunc(g.keys, func(sig string) bool { return l.old[sig] }) {
			continue
		}
		l.news.Log.Info("a crash that was not seen before", "group", g.ID, "title", g.Title, "host", s.Host, "dump", s.ID, "kernel", s.Release)
	}
}

// tellRegressions logs the groups of whose regressions the state has none, once.
func (n *News) tellRegressions(gs *Groups) {
	said := map[string]bool{}
	for _, g := range gs.All {
		quiet := g.noted
		for sig := range g.unsaid {
			quiet, said[sig] = quiet || n.said[sig], true
		}
		if r := g.Regression; len(g.unsaid) > 0 && !quiet {
			n.Log.Warn("regression: a crash that was resolved came again", "group", g.ID, "title", g.Title, "host", r.Dump.Host, "dump", r.Dump.ID,
				"kernel", r.Kernel, "resolved_in", strings.Join(g.Resolved[0].Kernels, " and "), "unordered", r.Unordered)
		}
	}
	n.said = said
}
