// Package groups says which dumps are of one crash, and what people said of it: groups of dumps, and their state.
//
// A group is the dumps of one signature. Dumps with two signatures, one of the log and one of memory, link the two; so does a merge by
// hand. A split by hand takes a dump or a signature out. Groups are computed each time from what the index has of the dumps. Only what
// people said is kept, in the file groups.json of the directory DATA/state (docs/layout.md). It is bound to signatures.
//
// A crashed machine chooses its log, and so its signature: a hostile host can join any group, and link any two. So nothing here deletes or
// admits a dump, and what was said of one signature does not hold for a signature that joined its group later. Memory is bounded
// by MaxKnown signatures and MaxNames names of each.
//
// A State and a Builder belong to one goroutine. Update may run in many processes at once. Groups are safe for concurrent reading.
package groups

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/corehaul/corehaul/storage"
)

// Status is where a group stands.
type Status string

// Statuses of a group.
const (
	StatusNew       Status = "new"       // nobody said anything of it that counts
	StatusMuted     Status = "muted"     // nobody needs to look at it
	StatusResolved  Status = "resolved"  // in a kernel, and no dump of such a kernel came since
	StatusRegressed Status = "regressed" // one did
)

// Statuses lists all.
var Statuses = []Status{StatusNew, StatusMuted, StatusResolved, StatusRegressed}

// Group is the dumps of one crash. Times are those of the crashes.
type Group struct {
	ID         string      `json:"id"` // the signature of the first dump
	Status     Status      `json:"state"`
	Title      string      `json:"title,omitempty"`
	Dumps      int         `json:"dumps"`
	First      time.Time   `json:"first_seen"`
	Last       time.Time   `json:"last_seen"`
	Hosts      []string    `json:"hosts"`           // sorted, at most MaxNames
	Kernels    []string    `json:"kernels"`         // sorted, at most MaxNames
	More       bool        `json:"more,omitempty"`  // there are more hosts or kernels
	Example    storage.Ref `json:"example"`         // the newest of the best dumps: complete before partial before log only
	Signatures []string    `json:"signatures"`      // sorted, at most MaxNames
	Vague      bool        `json:"vague,omitempty"` // a signature names no place in the code: different crashes may be in the group

	Notes    []Text       `json:"notes,omitempty"`
	Tickets  []Text       `json:"tickets,omitempty"`
	Muted    *Mute        `json:"muted,omitempty"`    // of a part of the signatures at least
	Resolved []Resolution `json:"resolved,omitempty"` // of a part of the signatures at least
	// Regression is the newest dump that came since, of a kernel that is not older, or the one that was noted if all of them were removed.
	Regression *Regression `json:"regression,omitempty"`
	Changes    []Change    `json:"changes,omitempty"` // merges and splits by hand

	keys   []string // all signatures, sorted
	chosen bool
	noted  bool              // a regression of one of the signatures is in the state
	unsaid map[string]*Again // the regressions that are not, by signature
}

// Resolution says in which kernels a crash was said to be resolved.
type Resolution struct {
	Kernels []string `json:"kernels"`
	Made
}

// Regression is a dump of a crash that was said to be resolved in its kernel or an older one.
type Regression struct {
	Dump   storage.Ref `json:"dump"`
	Kernel string      `json:"kernel"`
	Time   time.Time   `json:"time"`
	Dumps  int         `json:"dumps"` // how many there are; 0 if they were removed
	// Unordered says that nothing tells whether the kernel is older than the one in which the crash was resolved.
	Unordered bool `json:"unordered,omitempty"`
}

// Groups is all groups of a store.
type Groups struct {
	All      []*Group // the one with the newest dump first
	Unsigned int      // dumps without a signature
	Beyond   int      // dumps that are in no group because there are more than MaxKnown signatures

	byKey     map[string]*Group
	signature func(*storage.Sighting) string
}

// Groups returns the groups of the dumps that were added. The builder is used up.
func (b *Builder) Groups() *Groups {
	members := map[*key][]*key{}
	for _, k := range b.keys {
		root := k.root()
		members[root] = append(members[root], k)
	}
	gs := &Groups{Unsigned: b.unsigned, Beyond: b.beyond, byKey: map[string]*Group{}, signature: b.signature}
	changes := b.changes()
	for _, keys := range members {
		if g := b.group(keys, changes); g != nil {
			gs.All = append(gs.All, g)
			for _, sig := range g.keys {
				gs.byKey[sig] = g
			}
		}
	}
	slices.SortFunc(gs.All, func(a, b *Group) int { return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.ID, b.ID)) })
	return gs
}

// changes returns the changes by hand of each signature, as numbers in the list of the state.
func (b *Builder) changes() map[string][]int {
	of := map[string][]int{}
	for i, c := range b.state.Changes {
		of[c.Signature] = append(of[c.Signature], i)
		of[c.Other] = append(of[c.Other], i)
	}
	return of
}

// group returns the group of some signatures, nil if they have no dumps.
func (b *Builder) group(keys []*key, changes map[string][]int) *Group {
	slices.SortFunc(keys, func(x, y *key) int { return cmp.Compare(x.sig, y.sig) })
	var sum tally
	var numbers []int
	g := &Group{}
	for _, k := range keys {
		sum.merge(&k.sum)
		g.keys = append(g.keys, k.sig)
		numbers = append(numbers, changes[k.sig]...)
	}
	if sum.dumps == 0 {
		return nil
	}
	slices.Sort(numbers)
	for _, i := range slices.Compact(numbers) {
		g.Changes = append(g.Changes, b.state.Changes[i])
	}
	g.ID, g.Title, g.Dumps, g.Vague, g.chosen = b.signature(&sum.first), sum.last.Headline(), sum.dumps, sum.vague, sum.chosen
	g.First, g.Last, g.Example = sum.first.At, sum.last.At, sum.example.Ref
	g.Hosts, g.Kernels = slices.Sorted(slices.Values(sum.hosts.list)), slices.SortedFunc(slices.Values(sum.kernels.list), byRelease)
	g.Signatures = g.keys[:min(len(g.keys), MaxNames)]
	g.More = sum.hosts.more || sum.kernels.more || len(g.keys) > MaxNames
	if sum.again > 0 {
		g.Regression = &Regression{Dump: sum.regression.Ref, Kernel: sum.regression.Release, Time: sum.regression.At, Dumps: sum.again, Unordered: sum.unordered}
	}
	b.noted(g, keys)
	g.said(keys, b.now)
	return g
}

// byRelease sorts releases as far as they can be ordered one after the other, else by their text.
func byRelease(a, b string) int {
	x, y := parseRelease(a), parseRelease(b)
	if x == nil || y == nil {
		return cmp.Compare(a, b)
	}
	return cmp.Or(compareBase(x.base, y.base), cmp.Compare(x.candidate, y.candidate), slices.Compare(x.build, y.build), cmp.Compare(a, b))
}

// said fills in what people said of the signatures of a group. What holds for a part of them only does not hold for the group.
func (g *Group) said(keys []*key, now time.Time) {
	muted, resolved := true, true
	for _, k := range keys {
		m := &k.mark
		g.Notes, g.Tickets = addText(g.Notes, m.Note), addText(g.Tickets, m.Ticket)
		if mute := m.Muted; mute.holds(now) && (g.Muted == nil || g.Muted.Time.Before(mute.Time)) {
			g.Muted = mute
		}
		if r := m.Resolved; r != nil && !slices.ContainsFunc(g.Resolved, func(o Resolution) bool { return o.Made == r.Made && slices.Equal(o.Kernels, r.Kernels) }) {
			g.Resolved = append(g.Resolved, Resolution{r.Kernels, r.Made})
		}
		if k.sum.dumps > 0 {
			muted, resolved = muted && m.Muted.holds(now), resolved && m.Resolved != nil
		}
	}
	switch {
	case g.Regression != nil:
		g.Status = StatusRegressed
	case resolved:
		g.Status = StatusResolved
	case muted:
		g.Status = StatusMuted
	default:
		g.Status = StatusNew
	}
}

// holds reports whether a group is muted.
func (m *Mute) holds(now time.Time) bool { return m != nil && (m.Until == nil || now.Before(*m.Until)) }

// addText adds a text that is not there yet. The newest is the last.
func addText(texts []Text, t *Text) []Text {
	if t == nil || slices.Contains(texts, *t) {
		return texts
	}
	texts = append(texts, *t)
	slices.SortStableFunc(texts, func(a, b Text) int { return a.Time.Compare(b.Time) })
	return texts
}

// Of returns the group of a dump, nil if it is in none.
func (gs *Groups) Of(s *storage.Sighting) *Group { return gs.byKey[gs.signature(s)] }

// MinPrefix is the shortest beginning of a signature that names a group.
const MinPrefix = 4

// ErrNotFound says that no group has a name.
var ErrNotFound = errors.New("no such group")

// AmbiguousError is a name that several groups have. It matches ErrNotFound too.
type AmbiguousError struct {
	Name       string
	Candidates []string // ids, sorted; at most storage.MaxCandidates
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q names several groups: %s", e.Name, strings.Join(e.Candidates, ", "))
}

// Is makes the error match ErrNotFound.
func (e *AmbiguousError) Is(target error) bool { return target == ErrNotFound }

// Find returns the group that a person named: by a signature of it, or a beginning of one with at least MinPrefix digits. Errors match
// ErrNotFound.
func (gs *Groups) Find(name string) (*Group, error) {
	if g := gs.byKey[name]; g != nil {
		return g, nil
	}
	found := map[*Group]bool{}
	if len(name) >= MinPrefix {
		for sig, g := range gs.byKey {
			if strings.HasPrefix(sig, name) {
				found[g] = true
			}
		}
	}
	var ids []string
	for g := range found {
		if len(found) == 1 {
			return g, nil
		}
		ids = append(ids, g.ID)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%q: %w", name, ErrNotFound)
	}
	slices.Sort(ids)
	return nil, &AmbiguousError{Name: name, Candidates: ids[:min(len(ids), storage.MaxCandidates)]}
}
