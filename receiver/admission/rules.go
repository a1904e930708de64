package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/storage"
)

// Action is what a Rule does with a dump.
type Action string

// Actions of a Rule.
const (
	ActionAll       Action = "all"       // take all of it
	ActionEssential Action = "essential" // take the essential tiers
	ActionLog       Action = "log"       // take only the log, which is already stored
	ActionWait      Action = "wait"      // make it wait for as long as the rule matches
	ActionRefuse    Action = "refuse"    // refuse it; the log is already stored
)

var actions = []Action{ActionAll, ActionEssential, ActionLog, ActionWait, ActionRefuse}

// Scope is whose dumps a Rule counts.
type Scope string

// Scopes of a Rule.
const (
	ScopeHost  Scope = "host"  // those of the same host
	ScopeFleet Scope = "fleet" // those of all hosts
)

// Rule says what to do with the dumps that it matches. The first rule of a list that matches counts. For a dump with stored
// pages, only rules that take all or the essential tiers count: no rule refuses it or makes it wait.
type Rule struct {
	// Name is for logs and senders, such as "rule 2".
	Name string
	// Host is a pattern (path.Match) for the sender's proven name; empty matches all.
	Host string
	// FreeBelow matches while fewer bytes are free beyond the reserve. 0 means no condition. On a store without a limit, it
	// never matches.
	FreeBelow uint64
	// NoRoom matches a dump whose plan does not fit at the moment.
	NoRoom bool
	// SameCrash matches if at least that many dumps of the same crash came before this one, within the last Within (0: ever), from
	// SameCrashFrom (empty: ScopeHost). Crashes are compared by the signatures of their logs. A dump that lacks pages that crash
	// needs, is damaged or still arriving does not count. A crash whose signature names no place in the code, or
	// without a signature, does not match. 0 means no condition.
	SameCrash     int
	SameCrashFrom Scope
	Within        time.Duration
	// Then is the action. Required.
	Then Action
}

// Check returns what is wrong with r.
func (r *Rule) Check() error {
	_, glob := path.Match(r.Host, "")
	switch {
	case !slices.Contains(actions, r.Then):
		return fmt.Errorf("then is %q; it must be one of %q", r.Then, actions)
	case r.SameCrashFrom != "" && r.SameCrashFrom != ScopeHost && r.SameCrashFrom != ScopeFleet:
		return fmt.Errorf("same_crash_from is %q; it must be %q or %q", r.SameCrashFrom, ScopeHost, ScopeFleet)
	case glob != nil:
		return fmt.Errorf("host %q is not a valid pattern: %w", r.Host, glob)
	case r.SameCrash < 0 || r.Within < 0:
		return errors.New("same_crash and within cannot be negative")
	case r.SameCrash == 0 && (r.SameCrashFrom != "" || r.Within != 0):
		return errors.New("same_crash_from and within need same_crash")
	}
	return nil
}

// Crash is a dump about which Rules decide.
type Crash struct {
	Ref       storage.Ref
	PanicLine string
	LogBytes  int64     // length of the stored log
	Began     time.Time // time of the dump's first session
	HasPages  bool      // pages of it are stored
	NoRoom    bool      // its plan does not fit now
}

// Decision is the decision of Rules about a dump.
type Decision struct {
	Action Action
	Rule   string // name of the rule; empty if none matched
	Reason string // for the sender and the log
}

// Hold returns why the dump has to wait, empty if it need not.
func (d *Decision) Hold() string {
	if d.Action == ActionWait {
		return d.Reason
	}
	return ""
}

// Declines reports whether no pages are wanted.
func (d *Decision) Declines() bool { return d.Action == ActionLog || d.Action == ActionRefuse }

// Rules decide what the receiver takes of each dump. They are safe for concurrent use.
type Rules struct {
	room    *Room
	crashes crashHistory
	forget  func() // ends the subscription of crashes
	log     *slog.Logger

	mu   sync.Mutex
	list []Rule // never changed, only replaced
}

// NewRules returns the rules of list, which are checked, about dumps that are going to be in room's store.
func NewRules(list []Rule, room *Room, log *slog.Logger) *Rules {
	rs := &Rules{list: list, room: room, crashes: crashHistory{store: room.store, signer: newSigner(room.store)}, log: log}
	rs.crashes.sealed, rs.forget = room.store.Subscribe(storage.Sealed)
	return rs
}

// Set replaces the rules by those of list, which are checked. Dumps that wait are decided about again with the next review.
func (rs *Rules) Set(list []Rule) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if !compare(rs.list) {
		rs.crashes.expire() // nobody has received the hints of the store meanwhile
	}
	rs.list = list
}

// Len returns the number of rules.
func (rs *Rules) Len() int { return len(rs.rules()) }

func (rs *Rules) rules() []Rule {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.list
}

// compare reports whether a rule compares crashes.
func compare(list []Rule) bool {
	return slices.ContainsFunc(list, func(r Rule) bool { return r.SameCrash > 0 })
}

// listEvery is the pause between two lists of the store.
const listEvery = time.Minute

// Run keeps the counts of crashes up to date until ctx is done.
func (rs *Rules) Run(ctx context.Context) {
	defer rs.forget()
	tick := time.NewTicker(listEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !compare(rs.rules()) {
			continue
		}
		if err := rs.crashes.refresh(ctx); err != nil && ctx.Err() == nil {
			rs.log.Warn("the counts of crashes are not up to date", "error", err)
		}
	}
}

// Decide finds the rule for c. A condition that cannot be checked does not match, because a failing disk or index must not
// keep dumps away.
func (rs *Rules) Decide(ctx context.Context, c *Crash) Decision {
	list := rs.rules()
	for i := range list {
		r := &list[i]
		if c.HasPages && r.Then != ActionAll && r.Then != ActionEssential {
			continue
		}
		why, ok, err := rs.match(ctx, r, c)
		if err != nil {
			rs.log.Warn("cannot evaluate a rule; it is skipped", "host", c.Ref.Host, "dump", c.Ref.ID, "rule", r.Name, "error", err)
		}
		if ok && err == nil {
			return Decision{Action: r.Then, Rule: r.Name, Reason: fmt.Sprintf("%s (%s)", why, r.Name)}
		}
	}
	return Decision{Action: ActionAll}
}

// match reports whether all conditions of r hold, and why. It checks the cheap ones first.
func (rs *Rules) match(ctx context.Context, r *Rule, c *Crash) (why string, ok bool, err error) {
	if ok, err := path.Match(r.Host, c.Ref.Host); r.Host != "" && (!ok || err != nil) || r.NoRoom && !c.NoRoom {
		return "", false, err
	}
	var facts []string
	if r.NoRoom {
		facts = append(facts, "no room for the plan")
	}
	if r.FreeBelow > 0 {
		free, bounded, err := rs.room.Free(ctx)
		if err != nil || !bounded || free >= r.FreeBelow {
			return "", false, err
		}
		facts = append(facts, fmt.Sprintf("%s free, below %s", bytesize.Fine(free), bytesize.Fine(r.FreeBelow)))
	}
	if r.SameCrash > 0 {
		n, signature, err := rs.crashes.count(ctx, r, c)
		if err != nil || signature == "" || n < r.SameCrash {
			return "", false, err
		}
		facts = append(facts, fmt.Sprintf("the same crash is stored %d times: %s (signature %s)", n, c.PanicLine, signature))
	}
	if len(facts) == 0 {
		facts = append(facts, "host "+c.Ref.Host)
	}
	return strings.Join(facts, ", "), true, nil
}
