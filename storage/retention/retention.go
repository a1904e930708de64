// Package retention decides which dumps a store no longer needs, and removes them.
//
// Decide is a pure function of the dumps, the policy, the space and the clock. Its rules,
// which docs/operating.md promises:
//
//   - Age counts from the seal, on the receiver's clock. The clock of the crashed machine
//     does not matter.
//   - Dumps of one crash, by their signatures, are ranked. The first is the example of that
//     crash: the newest one of the most substance (see storage.Substance). The others follow,
//     newest first. Limits remove the highest rank first, and the oldest among equals. So
//     repetitions of a crash go before a crash that occurred once, and examples go last.
//   - A dump without a signature that names a place in the code may be of any crash: its
//     report is missing, or its log shows none. So it is no repetition. Limits of age, host
//     and bytes, which have to remove something, rank it by its panic title.
//   - Limits on bytes do not remove dumps that have only a log, because that frees nothing.
//   - Pinned and arriving dumps are never removed, nor those whose journal or manifest is
//     damaged. They count for limits. If a limit is not met because of them, the plan says so.
//   - If the removal of all removable dumps would not meet a limit, because others fill the
//     disk or too much is pinned, only repetitions are removed for it. This does not hold
//     for age, which is a limit of each single dump.
//
// Dumps are not removed for their age if the clock is behind the dumps or nothing confirms
// it: see Clock. The package is safe for concurrent use.
package retention

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/storage"
)

// Policy is what a store may keep. Zero fields set no limit.
type Policy struct {
	MaxAge      time.Duration // since the seal
	MaxPerHost  int           // dumps
	MaxPerCrash int           // dumps of one crash
	MaxTotal    uint64        // bytes of all dumps together
	KeepFree    uint64        // bytes free on the disk

	// Title returns what the panic lines of similar crashes have in common. If it is nil, whole lines are compared. A dump
	// without a signature and without a panic line is in no group.
	Title func(panicLine string) string
}

// Limits reports whether p sets any limit.
func (p *Policy) Limits() bool {
	return p.MaxAge > 0 || p.MaxPerHost > 0 || p.MaxPerCrash > 0 || p.MaxTotal > 0 || p.KeepFree > 0
}

// Removal is a dump to remove.
type Removal struct {
	Entry storage.Entry
	Why   string // for people
}

// Held is a dump that exceeds a limit and stays.
type Held struct {
	Entry storage.Entry
	Why   string // the limit
	By    string // "pinned", "arriving" or "damaged"
}

// Plan is the result of Decide.
type Plan struct {
	Remove []Removal // in this order
	Held   []Held
	// Unmet has limits that no removal would meet, and warnings about the clock, for people.
	Unmet []string
}

// dump is an entry with the state of a decision.
type dump struct {
	*storage.Entry
	crash string // equal for the dumps that are ranked together
	known bool   // they are of one crash for sure
	rank  int    // among the remaining ones of them; 0 is the example
	// repeats means that the dump is not first of its crash, and has no pages or a sealed one before it has some.
	repeats bool
	gone    bool
	held    bool
}

// heldBy returns why a dump is never removed, or "".
func (d *dump) heldBy() string {
	switch {
	case d.Pin != nil:
		return "pinned"
	case d.Manifest.State == dumpdir.StateArriving:
		return "arriving"
	case d.Manifest.State == dumpdir.StateDamaged:
		return "damaged" // its files contradict each other, so people have to decide
	}
	return ""
}

// at is the time by which dumps are sorted, on the receiver's clock.
func (d *dump) at() time.Time {
	if d.Manifest.EndTime != nil {
		return *d.Manifest.EndTime
	}
	return d.Manifest.StartTime
}

// crashOf returns what is equal for the dumps that e is ranked with, and whether those are of one crash for sure.
func crashOf(e *storage.Entry, p *Policy) (crash string, known bool) {
	if s := e.Signature(); s.NamesPlace() {
		return "signature " + s.ID, true
	}
	title := e.Manifest.PanicLine
	if p.Title != nil {
		title = p.Title(title)
	}
	if title == "" {
		return "dump " + e.String(), false
	}
	return "title " + title, false
}

// decision is one run of Decide.
type decision struct {
	dumps []*dump
	plan  Plan
}

// Decide returns which of the entries to remove, in which order and why.
func Decide(entries []storage.Entry, p Policy, space storage.Space, clock Clock) Plan {
	d := &decision{}
	for i := range entries {
		e := &entries[i]
		crash, known := crashOf(e, &p)
		d.dumps = append(d.dumps, &dump{Entry: e, crash: crash, known: known})
	}
	slices.SortStableFunc(d.dumps, newestFirst)
	if p.MaxAge > 0 {
		d.limitAge(p.MaxAge, clock)
	}
	if p.MaxPerCrash > 0 {
		d.limitPerCrash(p.MaxPerCrash)
	}
	if p.MaxPerHost > 0 {
		d.limitPerHost(p.MaxPerHost)
	}
	if p.MaxTotal > 0 {
		d.limitTotal(p.MaxTotal)
	}
	if p.KeepFree > 0 && space.Total > 0 {
		d.keepFree(p.KeepFree, space)
	}
	return d.plan
}

func newestFirst(a, b *dump) int {
	return cmp.Or(b.at().Compare(a.at()), cmp.Compare(a.Host, b.Host), cmp.Compare(a.ID, b.ID))
}

// removeOrHold adds a dump to Remove or, if it may not be removed, to Held.
func (d *decision) removeOrHold(x *dump, format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	if by := x.heldBy(); by != "" {
		if !x.held {
			d.plan.Held = append(d.plan.Held, Held{*x.Entry, why, by})
		}
		x.held = true
		return
	}
	x.gone = true
	d.plan.Remove = append(d.plan.Remove, Removal{*x.Entry, why})
}

// remaining returns the dumps that are not removed so far, newest first, and ranks them.
func (d *decision) remaining() []*dump {
	left := slices.DeleteFunc(slices.Clone(d.dumps), func(x *dump) bool { return x.gone })
	crashes := map[string][]*dump{}
	for _, x := range left {
		crashes[x.crash] = append(crashes[x.crash], x)
	}
	for _, same := range crashes {
		rank(same)
	}
	return left
}

// rank ranks the dumps of one crash, which are sorted.
func rank(same []*dump) {
	best := 0
	for i, x := range same {
		if x.Substance() > same[best].Substance() {
			best = i
		}
	}
	example := same[best]
	same = slices.Insert(slices.Delete(same, best, best+1), 0, example)
	pages := false
	for rank, x := range same {
		x.rank, x.repeats = rank, x.known && rank > 0 && (pages || x.Manifest.Pages.Present == 0)
		pages = pages || x.Manifest.Pages.Present > 0 && x.Manifest.State != dumpdir.StateArriving
	}
}

// limitAge removes dumps that are too old, the oldest first.
func (d *decision) limitAge(limit time.Duration, clock Clock) {
	if doubt := clock.doubt(d.dumps, limit); doubt != "" {
		d.addUnmet("no dump is removed for its age: %s", doubt)
		return
	}
	for _, x := range slices.Backward(d.dumps) {
		if at := x.Manifest.EndTime; at != nil && clock.Now.Sub(*at) > limit {
			d.removeOrHold(x, "it was sealed %s ago; the limit is %s", days(clock.Now.Sub(*at)), days(limit))
		}
	}
}

// limitPerCrash removes the dumps of each crash whose rank is not below the limit.
func (d *decision) limitPerCrash(limit int) {
	for _, x := range byWorth(d.remaining()) {
		if x.known && x.rank >= limit {
			d.removeOrHold(x, "it is number %d of its crash (signature %s); the limit is %d", x.rank+1, x.Signature().ID, limit)
		}
	}
}

// limitPerHost keeps the most valuable dumps of each host.
func (d *decision) limitPerHost(limit int) {
	hosts, kept := map[string]int{}, map[string]int{}
	for _, x := range d.remaining() {
		hosts[x.Host]++
		if x.heldBy() != "" {
			kept[x.Host]++
		}
	}
	for _, x := range byWorth(d.remaining()) {
		n := hosts[x.Host]
		if n <= limit || kept[x.Host] > limit && x.heldBy() == "" && !x.repeats {
			continue
		}
		d.removeOrHold(x, "its host has %d dumps; the limit is %d", n, limit)
		if x.gone {
			hosts[x.Host]--
		}
	}
	for _, host := range slices.Sorted(maps.Keys(kept)) {
		if kept[host] > limit {
			d.addUnmet("host %s has %d pinned or arriving dumps; the limit is %d; %s", host, kept[host], limit, onlyRepetitions)
		}
	}
}

// limitTotal removes dumps until the others fit the limit.
func (d *decision) limitTotal(limit uint64) {
	sum := size(d.remaining())
	over := sum - min(sum, limit)
	missing := d.removeUntilFreed(over, func(x *dump) { d.removeOrHold(x, "all dumps together have %d bytes; the limit is %d", sum, limit) })
	if missing > 0 {
		d.addUnmet("max_total is %s: pinned and arriving dumps and logs alone have %s more; %s", bytesize.Exact(limit), bytesize.Exact(missing), onlyRepetitions)
	}
}

// keepFree removes dumps until the disk has enough free space. It counts the dumps that other limits removed.
func (d *decision) keepFree(limit uint64, space storage.Space) {
	have, dumps := space.Free, size(d.remaining())
	for _, r := range d.plan.Remove {
		have += r.Entry.Bytes()
		dumps += r.Entry.Bytes()
	}
	lack := limit - min(limit, have)
	missing := d.removeUntilFreed(lack, func(x *dump) { d.removeOrHold(x, "%d bytes are free; keep_free is %d", have, limit) })
	if missing > 0 {
		used := space.Total - min(space.Total, space.Free)
		d.addUnmet("keep_free is %s: it needs %s more than the removal of all removable dumps frees; the disk has %s, dumps use %s, other files use %s; %s",
			bytesize.Exact(limit), bytesize.Exact(missing), bytesize.Exact(space.Total), bytesize.Exact(dumps), bytesize.Exact(used-min(used, dumps)), onlyRepetitions)
	}
}

// onlyRepetitions ends a message about a limit that cannot be met: no crash loses its last dump for it.
const onlyRepetitions = "only repetitions of a crash are removed for it"

// addUnmet adds a message about a limit that cannot be met.
func (d *decision) addUnmet(format string, args ...any) {
	d.plan.Unmet = append(d.plan.Unmet, fmt.Sprintf(format, args...))
}

// size is the size of dumps in bytes.
func size(dumps []*dump) (sum uint64) {
	for _, x := range dumps {
		sum += x.Bytes()
	}
	return sum
}

// removeUntilFreed removes dumps with pages, the least valuable first, until bytes are freed. If all removable dumps would
// not be enough, it removes repetitions only, and returns how many bytes all of them would leave missing.
func (d *decision) removeUntilFreed(bytes uint64, remove func(*dump)) (missing uint64) {
	left := byWorth(slices.DeleteFunc(d.remaining(), func(x *dump) bool { return x.Manifest.Bytes.VMCore <= 0 }))
	missing = bytes - min(bytes, size(slices.DeleteFunc(slices.Clone(left), func(x *dump) bool { return x.heldBy() != "" })))
	for _, x := range left {
		if bytes == 0 {
			break
		}
		if missing > 0 && x.heldBy() == "" && !x.repeats {
			continue
		}
		if remove(x); x.gone {
			bytes -= min(bytes, x.Bytes())
		}
	}
	return missing
}

// byWorth sorts the least valuable dumps first: by rank within their crash, then by age.
func byWorth(left []*dump) []*dump {
	slices.SortStableFunc(left, func(a, b *dump) int { return cmp.Or(cmp.Compare(b.rank, a.rank), newestFirst(b, a)) })
	return left
}

// days formats a duration, in whole days from two days on.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d < 2*day {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%dd", d/day)
}
