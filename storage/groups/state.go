package groups

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/corehaul/corehaul/internal/lazyregexp"
	"github.com/corehaul/corehaul/storage"
)

// Limits of the state, so that neither a mistake nor a hostile dump makes it grow without bound.
const (
	// MaxText is the most bytes of a note or a ticket.
	MaxText = 4096
	// MaxSignatures is the most signatures of a group that has a state.
	MaxSignatures = 1000
	// maxSeen is the most dumps that a resolution notes as known.
	maxSeen = 10000
	// maxKernels is the most kernels of a resolution.
	maxKernels = 32
)

// State is what people said of groups. It is bound to signatures, because dumps come and go.
type State struct {
	Version    int              `json:"version"`
	Signatures map[string]*Mark `json:"signatures,omitempty"`
	Changes    []Change         `json:"changes,omitempty"` // of the groups themselves, in the order in which they were made
}

// Mark is what people said of the group of a signature. Every signature of the group has it.
type Mark struct {
	Note     *Text     `json:"note,omitempty"`
	Ticket   *Text     `json:"ticket,omitempty"`
	Muted    *Mute     `json:"muted,omitempty"`
	Resolved *Resolved `json:"resolved,omitempty"`
}

// Made says who changed something, and when.
type Made struct {
	By   string    `json:"by,omitempty"`
	Time time.Time `json:"time"`
}

// Text is a note, or the link or number of a ticket.
type Text struct {
	Text string `json:"text"`
	Made
}

// Mute says that nobody needs to look at a group.
type Mute struct {
	Until *time.Time `json:"until,omitempty"` // nil: without end
	Made
}

// Resolved says that the kernels of some releases, and later ones, no longer crash so.
type Resolved struct {
	Kernels []string `json:"kernels"` // one of each distribution, at least one
	// Seen has the dumps of this signature that were there and whose kernel is not known to be older. They are no regression.
	Seen []storage.Ref `json:"seen,omitempty"`
	// Again is a dump that came since, of a kernel that is not older. It is noted because the dump may be removed.
	Again *Again `json:"again,omitempty"`
	Made
}

// Again is the first regression that a program noticed.
type Again struct {
	Dump      storage.Ref `json:"dump"`
	Kernel    string      `json:"kernel"`
	Time      time.Time   `json:"time"` // of the crash
	Unordered bool        `json:"unordered,omitempty"`
}

// Kinds of Change.
const (
	Merge = "merge"
	Split = "split"
)

// Change is a merge or a split by hand.
type Change struct {
	Kind string `json:"kind"`
	// Signature is the one that was merged with Other, or taken out of the group of Other. That of a dump that was taken out is
	// dumpSignature.
	Signature string       `json:"signature"`
	Other     string       `json:"other"`
	Dump      *storage.Ref `json:"dump,omitempty"` // only of a split
	Made
}

var signatureForm = lazyregexp.New(`^[0-9a-f]{16}$`)

// check returns what is wrong with a state that was read.
func (st *State) check() error {
	for sig, mark := range st.Signatures {
		if !signatureForm.MatchString(sig) || mark == nil {
			return fmt.Errorf("%q is not a signature with a state", sig)
		}
		if r := mark.Resolved; r != nil {
			if err := checkKernels(r.Kernels); err != nil {
				return fmt.Errorf("%s is resolved in: %w", sig, err)
			}
		}
	}
	for _, c := range st.Changes {
		if c.Kind != Merge && c.Kind != Split || !signatureForm.MatchString(c.Signature) || !signatureForm.MatchString(c.Other) {
			return fmt.Errorf("a change %q of %q and %q is none that this program knows", c.Kind, c.Signature, c.Other)
		}
		if c.Dump != nil && (c.Kind != Split || c.Signature != dumpSignature(*c.Dump)) {
			return fmt.Errorf("the split of dump %s names another signature", c.Dump)
		}
	}
	return nil
}

// mark returns what was said of a signature, empty if nothing was.
func (st *State) mark(sig string) Mark {
	if m := st.Signatures[sig]; m != nil {
		return *m
	}
	return Mark{}
}

// Set changes what is said of each signature of a group. The error says that the group has too many.
func (st *State) Set(g *Group, change func(sig string, m *Mark)) error {
	if len(g.keys) > MaxSignatures {
		return fmt.Errorf("group %s has more than %d signatures; split it first", g.ID, MaxSignatures)
	}
	if st.Signatures == nil {
		st.Signatures = map[string]*Mark{}
	}
	for _, sig := range g.keys {
		m := st.mark(sig)
		if change(sig, &m); m == (Mark{}) {
			delete(st.Signatures, sig)
		} else {
			st.Signatures[sig] = &m
		}
	}
	return nil
}

// checkKernels returns what is wrong with a list of releases.
func checkKernels(kernels []string) error {
	for _, k := range kernels {
		if !ValidRelease(k) {
			return fmt.Errorf("%q is not a kernel release, as uname -r prints it", k)
		}
	}
	if n := len(kernels); n == 0 || n > maxKernels {
		return fmt.Errorf("%d kernel releases; there must be 1 to %d", n, maxKernels)
	}
	return nil
}

// order is CompareReleases with the kernels of a resolution. One that can be ordered with the release decides.
func (r *Resolved) order(release string) Order {
	order := Unordered
	for _, k := range r.Kernels {
		order = max(order, CompareReleases(release, k))
	}
	return order
}

// Resolve says that the crash of a group is resolved in some kernels. members are the dumps of the group. It returns those that speak against
// it, because their kernel is not known to be older; only later ones count as a regression.
func (st *State) Resolve(gs *Groups, g *Group, members []storage.Sighting, kernels []string, by Made) (against []storage.Sighting, err error) {
	if err := checkKernels(kernels); err != nil {
		return nil, err
	}
	r := &Resolved{Kernels: kernels}
	known := map[string][]storage.Ref{}
	for _, s := range members {
		if r.order(s.Release) != Older {
			against = append(against, s)
			sig := gs.signature(&s)
			known[sig] = append(known[sig], s.Ref)
		}
	}
	if len(against) > maxSeen {
		return nil, fmt.Errorf("%d dumps of group %s have kernels that are not known to be older than %s, more than %d; split the group first", len(against), g.ID, strings.Join(kernels, ", "), maxSeen)
	}
	return against, st.Set(g, func(sig string, m *Mark) { m.Resolved = &Resolved{Kernels: kernels, Seen: known[sig], Made: by} })
}

// Errors of the changes by hand.
var (
	ErrSameGroup = errors.New("it is one group already")
	ErrAlone     = errors.New("the group would be the same: there is nothing else in it")
	ErrNoChange  = errors.New("nobody has merged or split this group")
)

// Merge makes one group of two.
func (st *State) Merge(a, b *Group, by Made) error {
	if a.ID == b.ID {
		return ErrSameGroup
	}
	st.Changes = append(st.Changes, Change{Kind: Merge, Signature: b.ID, Other: a.ID, Made: by})
	return nil
}

// SplitSignature takes a signature out of a group. Dumps no longer link it with another.
func (st *State) SplitSignature(g *Group, sig string, by Made) error {
	other := slices.IndexFunc(g.keys, func(key string) bool { return key != sig })
	if other < 0 {
		return ErrAlone
	}
	rest := g.keys[other]
	if g.ID != sig {
		rest = g.ID
	}
	st.Changes = append(st.Changes, Change{Kind: Split, Signature: sig, Other: rest, Made: by})
	return nil
}

// SplitDump takes one dump out of a group, into a group of its own. It returns the signature of that one.
func (st *State) SplitDump(g *Group, ref storage.Ref, by Made) (own string, err error) {
	if g.Dumps == 1 {
		return "", ErrAlone
	}
	own = dumpSignature(ref)
	st.Changes = append(st.Changes, Change{Kind: Split, Signature: own, Other: g.ID, Dump: &ref, Made: by})
	return own, nil
}

// Undo takes back the last change that made a group what it is, and returns it.
func (st *State) Undo(g *Group) (Change, error) {
	for i, c := range slices.Backward(st.Changes) {
		if slices.Contains(g.keys, c.Signature) || slices.Contains(g.keys, c.Other) {
			st.Changes = slices.Delete(st.Changes, i, i+1)
			return c, nil
		}
	}
	return Change{}, ErrNoChange
}
