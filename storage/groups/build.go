package groups

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// Limits of what is kept in memory. A hostile host can give each of its dumps a signature and a kernel of its own.
const (
	// MaxKnown is the most signatures that are grouped. The newest dumps come first, so what is left out is old.
	MaxKnown = 1 << 16
	// MaxNames is the most hosts, and the most kernels, that are listed of a group.
	MaxNames = 1000
)

// dumpSignature stands for the signature of a dump that was split from its group by hand. No report has it.
func dumpSignature(ref storage.Ref) string {
	sum := sha256.Sum256([]byte("dump " + ref.String()))
	return hex.EncodeToString(sum[:8])
}

// Builder makes groups of sightings. The zero value is not ready.
type Builder struct {
	state *State
	now   time.Time
	known int // most signatures

	keys   map[string]*key
	single map[storage.Ref]string // the signature of dumps that were split from their groups
	cut    map[string]bool        // signatures that dumps no longer link
	orders map[compared]Order

	unsigned, beyond int
}

// key is one signature and the dumps that are grouped by it.
type key struct {
	parent *key // of the tree of signatures of one group; nil: the root
	sig    string
	sum    tally
	mark   Mark
}

// tally is what is known of some dumps of one group.
type tally struct {
	dumps, again        int
	first, last         storage.Sighting
	example, regression storage.Sighting
	unordered           bool // the regression's kernel and the one in which the crash was resolved cannot be ordered
	hosts, kernels      names
	chosen, vague       bool
}

// names are distinct names, bounded.
type names struct {
	list []string
	more bool
}

func (n *names) add(name string) {
	switch {
	case slices.Contains(n.list, name):
	case len(n.list) == MaxNames:
		n.more = true
	default:
		n.list = append(n.list, strings.Clone(name))
	}
}

func (n *names) addAll(from *names) {
	for _, name := range from.list {
		n.add(name)
	}
	n.more = n.more || from.more
}

// NewBuilder returns a builder of groups with a state.
func NewBuilder(st *State, now time.Time) *Builder {
	b := &Builder{
		state: st, now: now, known: MaxKnown,
		keys: map[string]*key{}, single: map[storage.Ref]string{}, cut: map[string]bool{}, orders: map[compared]Order{},
	}
	for i, c := range st.Changes {
		switch {
		case c.Dump != nil:
			b.single[*c.Dump] = c.Signature
		case c.Kind == Split:
			b.cut[c.Signature] = true
		case !slices.ContainsFunc(st.Changes[i+1:], c.undoneBy):
			b.link(c.Signature, c.Other)
		}
	}
	return b
}

// undoneBy reports whether a later split takes apart what c merged.
func (c Change) undoneBy(later Change) bool {
	return later.Kind == Split && (later.Signature == c.Signature || later.Signature == c.Other)
}

// Add adds a dump. The newest comes first. chosen says that the filter of a list chooses the dump.
func (b *Builder) Add(s *storage.Sighting, chosen bool) {
	sig := b.signature(s)
	if sig == "" {
		b.unsigned++
		return
	}
	k := b.key(sig)
	if k == nil {
		b.beyond++
		return
	}
	k.sum.add(s, chosen)
	b.compare(k, s)
	if sig == s.Signature && s.Linked != "" && !b.cut[sig] && !b.cut[s.Linked] {
		b.link(sig, s.Linked)
	}
}

// signature returns the one by which a dump is grouped.
func (b *Builder) signature(s *storage.Sighting) string {
	if sig, ok := b.single[s.Ref]; ok {
		return sig
	}
	return s.Signature
}

// key returns what is known of a signature, nil if there are too many.
func (b *Builder) key(sig string) *key {
	k := b.keys[sig]
	if k == nil && len(b.keys) < b.known {
		k = &key{sig: strings.Clone(sig), mark: b.state.mark(sig)}
		b.keys[k.sig] = k
	}
	return k
}

func (b *Builder) link(sig, other string) {
	x, y := b.key(sig), b.key(other)
	if x == nil || y == nil {
		return
	}
	if x, y = x.root(), y.root(); x != y {
		y.parent = x
	}
}

// root returns the signature that stands for the group. It shortens the way for the next one that asks.
func (k *key) root() *key {
	for k.parent != nil {
		if k.parent.parent != nil {
			k.parent = k.parent.parent
		}
		k = k.parent
	}
	return k
}

// add counts a dump, which is older than those before.
func (t *tally) add(s *storage.Sighting, chosen bool) {
	if t.dumps == 0 {
		t.last = *s
	}
	t.dumps++
	t.first = *s
	t.chosen, t.vague = t.chosen || chosen, t.vague || s.Vague
	if t.example.ID == "" || worth(s) > worth(&t.example) {
		t.example = *s
	}
	t.hosts.add(s.Host)
	t.kernels.add(s.Release)
}

// worth says how much can be read of a dump.
func worth(s *storage.Sighting) int {
	return slices.Index([]dumpdir.State{dumpdir.StateDamaged, dumpdir.StateArriving, dumpdir.StateLogOnly, dumpdir.StatePartial, dumpdir.StateComplete}, s.State)
}

// compare notes a dump that came after its crash was said to be resolved, and whose kernel is not older.
func (b *Builder) compare(k *key, s *storage.Sighting) {
	r := k.mark.Resolved
	if r == nil {
		return
	}
	order := b.order(r, s.Release)
	if order == Older || slices.Contains(r.Seen, s.Ref) {
		return
	}
	if k.sum.again == 0 {
		k.sum.regression, k.sum.unordered = *s, order == Unordered
	}
	k.sum.again++
}

// order is that of the resolution. It does not compare the same releases again and again.
func (b *Builder) order(r *Resolved, release string) Order {
	pair := compared{r, release}
	o, ok := b.orders[pair]
	if !ok {
		o = r.order(release)
		if len(b.orders) < MaxNames {
			b.orders[pair] = o
		}
	}
	return o
}

// noted compares the regressions of a group with those that the state has. One of the state counts even if its dump was removed, unless that
// dump was split from the group.
func (b *Builder) noted(g *Group, keys []*key) {
	for _, k := range keys {
		r := k.mark.Resolved
		switch {
		case r == nil:
		case r.Again != nil && b.single[r.Again.Dump] == "":
			g.noted = true
			if a := r.Again; g.Regression == nil || g.Regression.Dumps == 0 && g.Regression.Time.Before(a.Time) {
				g.Regression = &Regression{Dump: a.Dump, Kernel: a.Kernel, Time: a.Time, Unordered: a.Unordered}
			}
		case k.sum.again > 0:
			if g.unsaid == nil {
				g.unsaid = map[string]*Again{}
			}
			s := &k.sum.regression
			g.unsaid[k.sig] = &Again{Dump: s.Ref, Kernel: s.Release, Time: s.At, Unordered: k.sum.unordered}
		}
	}
}

// compared is a release that was compared with those of a resolution.
type compared struct {
	with    *Resolved
	release string
}

// merge adds the dumps of another signature of the group.
func (t *tally) merge(o *tally) {
	if o.dumps == 0 {
		return
	}
	if t.dumps == 0 {
		hosts, kernels := t.hosts, t.kernels
		*t = *o
		t.hosts, t.kernels = hosts, kernels
	} else {
		t.mergeTimes(o)
	}
	t.hosts.addAll(&o.hosts)
	t.kernels.addAll(&o.kernels)
}

func (t *tally) mergeTimes(o *tally) {
	t.dumps, t.again = t.dumps+o.dumps, t.again+o.again
	t.chosen, t.vague = t.chosen || o.chosen, t.vague || o.vague
	if o.first.Before(&t.first) {
		t.first = o.first
	}
	if t.last.Before(&o.last) {
		t.last = o.last
	}
	if w := worth(&o.example) - worth(&t.example); w > 0 || w == 0 && t.example.Before(&o.example) {
		t.example = o.example
	}
	if o.again > 0 && (t.regression.ID == "" || t.regression.Before(&o.regression)) {
		t.regression, t.unordered = o.regression, o.unordered
	}
}
