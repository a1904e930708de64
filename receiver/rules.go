package receiver

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/storage"
)

// Action is what a Rule does with a dump.
type Action string

// What a Rule may do.
const (
	ActionAll       Action = "all"       // take all of it
	ActionEssential Action = "essential" // take the essential tiers
	ActionLog       Action = "log"       // take the log only, which is stored by then
	ActionWait      Action = "wait"      // let it wait for as long as the rule matches
	ActionRefuse    Action = "refuse"    // send it away; the log is stored
)

var actions = []Action{ActionAll, ActionEssential, ActionLog, ActionWait, ActionRefuse}

// Scope is whose dumps a Rule counts.
type Scope string

// Whose dumps a Rule may count.
const (
	ScopeHost  Scope = "host"  // those of the same host
	ScopeFleet Scope = "fleet" // those of all hosts
)

// Rule says what to do with dumps of a kind. The first one of a list that matches
// counts. A dump that has pages already is never sent away, nor made to wait, by a rule:
// for it only those that take all or the essential tiers count.
type Rule struct {
	// Name is what logs and senders are shown, such as "rule 2".
	Name string
	// Host is a pattern (path.Match) for the sender's proven name; empty matches all.
	Host string
	// FreeBelow matches while less than so many bytes are free beyond the reserve; 0 asks
	// nothing. It never matches on a store without a bound.
	FreeBelow uint64
	// NoRoom matches a dump whose plan was found not to fit at the moment.
	NoRoom bool
	// SamePanic matches when at least so many dumps with the same panic title came before
	// this one, within the last Within (0: ever), from SamePanicFrom (empty: ScopeHost). 0 asks nothing.
	SamePanic     int
	SamePanicFrom Scope
	Within        time.Duration
	// Then is what is done. Required.
	Then Action
}

// Check tells what is wrong with r.
func (r *Rule) Check() error {
	_, glob := path.Match(r.Host, "")
	switch {
	case !slices.Contains(actions, r.Then):
		return fmt.Errorf("then is %q, and not one of %q", r.Then, actions)
	case r.SamePanicFrom != "" && r.SamePanicFrom != ScopeHost && r.SamePanicFrom != ScopeFleet:
		return fmt.Errorf("same_panic_from is %q, and neither %q nor %q", r.SamePanicFrom, ScopeHost, ScopeFleet)
	case glob != nil:
		return fmt.Errorf("host %q is no pattern: %w", r.Host, glob)
	case r.SamePanic < 0 || r.Within < 0:
		return errors.New("same_panic and within cannot be negative")
	case r.SamePanic == 0 && (r.SamePanicFrom != "" || r.Within != 0):
		return errors.New("same_panic_from and within say nothing without same_panic")
	}
	return nil
}

// crash is what rules are asked about.
type crash struct {
	ref    storage.Ref
	line   string    // the panic line
	began  time.Time // when the dump first came
	pages  bool      // some are stored
	noRoom bool      // its plan does not fit now
}

// verdict is the answer.
type verdict struct {
	action Action
	rule   string // empty when none matched
	reason string // in words, for the sender and the log
}

// hold is why a dump has to wait; empty when it need not.
func (v *verdict) hold() string {
	if v.action == ActionWait {
		return v.reason
	}
	return ""
}

// declines tells whether no pages are wanted.
func (v *verdict) declines() bool { return v.action == ActionLog || v.action == ActionRefuse }

// judge finds the rule for c. What it cannot find out does not match: a failing disk or
// index must not keep dumps away. Counts may be as old as notBefore.
func (s *Server) judge(ctx context.Context, c *crash, notBefore time.Time) verdict {
	for i := range s.cfg.Rules {
		r := &s.cfg.Rules[i]
		if c.pages && r.Then != ActionAll && r.Then != ActionEssential {
			continue
		}
		why, ok, err := s.matches(ctx, r, c, notBefore)
		if err != nil {
			s.cfg.Log.Warn("cannot tell whether a rule matches; it is passed over", "host", c.ref.Host, "dump", c.ref.ID, "rule", r.Name, "error", err)
		}
		if ok && err == nil {
			return verdict{action: r.Then, rule: r.Name, reason: strings.Join(append(why, "("+r.Name+")"), " ")}
		}
	}
	return verdict{action: ActionAll}
}

// matches tells whether all that r asks for holds, and how in words. The cheap questions come first.
func (s *Server) matches(ctx context.Context, r *Rule, c *crash, notBefore time.Time) (why []string, ok bool, err error) {
	if ok, err := path.Match(r.Host, c.ref.Host); r.Host != "" && (!ok || err != nil) || r.NoRoom && !c.noRoom {
		return nil, false, err
	}
	if r.NoRoom {
		why = append(why, "no room for the plan")
	}
	if r.FreeBelow > 0 {
		free, bounded, err := s.freeSpace(ctx)
		if err != nil || !bounded || free >= r.FreeBelow {
			return nil, false, err
		}
		why = append(why, fmt.Sprintf("%s free, below %s", size(free), size(r.FreeBelow)))
	}
	if r.SamePanic > 0 {
		n, err := s.census.count(ctx, r, c, notBefore)
		if err != nil || n < r.SamePanic {
			return nil, false, err
		}
		why = append(why, fmt.Sprintf("the same panic came %d times before: %s", n, c.line))
	}
	if len(why) == 0 {
		why = append(why, "host "+c.ref.Host)
	}
	return []string{strings.Join(why, ", ")}, true, nil
}

// census counts dumps by panic title.
type census struct {
	store storage.Store
	mu    sync.Mutex
	taken time.Time // before the list was asked for
	seen  []sighting
}

// sighting is one stored dump.
type sighting struct {
	ref   storage.Ref
	title string
	came  time.Time
}

// maxCensus bounds the dumps that are looked at, the newest ones by their crash.
const maxCensus = 10000

// count returns how many dumps with c's title came before it, from where r says.
func (s *census) count(ctx context.Context, r *Rule, c *crash, notBefore time.Time) (int, error) {
	title := printk.Title(c.line)
	if title == "" {
		return 0, nil
	}
	seen, err := s.fresh(ctx, notBefore)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, d := range seen {
		// Those that came later do not count: the same dump gets the same answer when its sender comes back.
		switch {
		case d.title != title, d.ref == c.ref, !d.came.Before(c.began):
		case r.SamePanicFrom != ScopeFleet && d.ref.Host != c.ref.Host:
		case r.Within > 0 && time.Since(d.came) > r.Within:
		default:
			n++
		}
	}
	return n, nil
}

// fresh returns a list that is no older than notBefore. When many ask at a time, one
// list serves all who asked before it was taken.
func (s *census) fresh(ctx context.Context, notBefore time.Time) ([]sighting, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.taken.IsZero() && !s.taken.Before(notBefore) {
		return s.seen, nil
	}
	now := time.Now()
	entries, err := s.store.List(ctx, storage.Filter{Limit: maxCensus})
	if err != nil {
		return nil, fmt.Errorf("list the dumps: %w", err)
	}
	seen := make([]sighting, 0, len(entries))
	for _, e := range entries {
		if title := printk.Title(e.Manifest.PanicLine); title != "" {
			seen = append(seen, sighting{ref: e.Ref, title: title, came: e.Manifest.StartTime})
		}
	}
	s.taken, s.seen = now, seen
	return seen, nil
}
