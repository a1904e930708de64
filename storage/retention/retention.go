// Package retention decides which dumps a store no longer needs, and removes them.
//
// Decide is a pure function of the dumps, the policy, the space and the clock. Its order, which
// docs/operating.md promises:
//
//   - Age counts from the seal, on the receiver's clock. The clock of the crashed machine says nothing.
//   - Dumps of one panic title are ranked: first the newest that has pages and is undamaged, the example of
//     that crash, then the others, newest first. Limits take the highest rank first and among equals
//     the oldest, so a crash that repeats itself goes before one that came once, and examples go last.
//   - Limits on bytes pass over dumps that have only a log: they would free nothing.
//   - Pinned and arriving dumps are never taken, nor those whose journal or manifest is damaged. They count, and what they keep from being met is said.
//   - A limit that the removal of all that may go would not meet, because others fill the disk or too much is pinned, takes
//     repetitions only. Age is no such limit: it asks something of each dump, not of all together.
//
// Age is not trusted to a clock that is behind what the dumps say, or that nothing vouches for: see Clock. The
// package is safe for concurrent use.
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
	MaxPerPanic int           // dumps of one panic title
	MaxTotal    uint64        // bytes of all dumps together
	KeepFree    uint64        // bytes free on the disk

	// Title tells what a panic line has in common with those of the same crash; nil compares lines as they are. Dumps
	// without a panic line are no group: each is its own.
	Title func(panicLine string) string
}

// Limits reports whether p sets any limit.
func (p *Policy) Limits() bool {
	return p.MaxAge > 0 || p.MaxPerHost > 0 || p.MaxPerPanic > 0 || p.MaxTotal > 0 || p.KeepFree > 0
}

// Removal is a dump that has to go.
type Removal struct {
	Entry storage.Entry
	Why   string // for people
}

// Held is a dump that would have to go, and stays.
type Held struct {
	Entry storage.Entry
	Why   string // why it would have to go
	By    string // "pinned", "arriving" or "damaged"
}

// Plan is what Decide says.
type Plan struct {
	Remove []Removal // in this order
	Held   []Held
	// Unmet are limits that no removal would meet, and warnings about the clock, for people.
	Unmet []string
}

// dump is an entry with what Decide knows of it.
type dump struct {
	*storage.Entry
	title string
	rank  int // among those of its title that stay; 0 is the example
	// repeats: a sealed dump of its title that ranks higher has pages, or this one has none either.
	repeats bool
	gone    bool
	held    bool
}

// heldBy returns why a dump is never taken, or nothing.
func (d *dump) heldBy() string {
	switch {
	case d.Pin != nil:
		return "pinned"
	case d.Manifest.State == dumpdir.StateArriving:
		return "arriving"
	case d.Manifest.State == dumpdir.StateDamaged:
		return "damaged" // its files contradict each other: what it is worth is for people to say
	}
	return ""
}

// at is the time that dumps are sorted by: the receiver's.
func (d *dump) at() time.Time {
	if d.Manifest.EndTime != nil {
		return *d.Manifest.EndTime
	}
	return d.Manifest.StartTime
}

// example reports whether a dump can stand for its title.
func (d *dump) example() bool {
	return d.Manifest.Pages.Present > 0 && d.State() != dumpdir.StateDamaged && d.State() != dumpdir.StateArriving
}

// decision is one run of Decide.
type decision struct {
	dumps []*dump
	plan  Plan
}

// Decide returns which of the entries have to go, in which order and why.
func Decide(entries []storage.Entry, p Policy, space storage.Space, clock Clock) Plan {
	d := &decision{}
	for i := range entries {
		e := &entries[i]
		title := e.Manifest.PanicLine
		if p.Title != nil {
			title = p.Title(title)
		}
		if title == "" {
			title = "\x00" + e.String()
		}
		d.dumps = append(d.dumps, &dump{Entry: e, title: title})
	}
	slices.SortStableFunc(d.dumps, newestFirst)
	if p.MaxAge > 0 {
		d.limitAge(p.MaxAge, clock)
	}
	if p.MaxPerPanic > 0 {
		d.limitPerPanic(p.MaxPerPanic)
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

// removeOrHold removes a dump, or notes what keeps it.
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

// remaining returns the dumps that stay so far, newest first, with their ranks.
func (d *decision) remaining() []*dump {
	left := slices.DeleteFunc(slices.Clone(d.dumps), func(x *dump) bool { return x.gone })
	titles := map[string][]*dump{}
	for _, x := range left {
		titles[x.title] = append(titles[x.title], x)
	}
	for _, same := range titles {
		if i := slices.IndexFunc(same, (*dump).example); i > 0 {
			example := same[i]
			same = slices.Insert(slices.Delete(same, i, i+1), 0, example)
		}
		pages := false
		for rank, x := range same {
			x.rank, x.repeats = rank, rank > 0 && (pages || x.Manifest.Pages.Present == 0)
			pages = pages || x.Manifest.Pages.Present > 0 && x.Manifest.State != dumpdir.StateArriving
		}
	}
	return left
}

// limitAge removes what is too old, the oldest first.
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

// limitPerPanic removes from each title what ranks behind the limit.
func (d *decision) limitPerPanic(limit int) {
	for _, x := range byWorth(d.remaining()) {
		if x.rank >= limit {
			d.removeOrHold(x, "it is number %d of its panic title; the limit is %d", x.rank+1, limit)
		}
	}
}

// limitPerHost keeps of each host the dumps that are worth most.
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

// limitTotal removes until all that is left fits.
func (d *decision) limitTotal(limit uint64) {
	sum := size(d.remaining())
	over := sum - min(sum, limit)
	missing := d.removeUntilFreed(over, func(x *dump) { d.removeOrHold(x, "all dumps together have %d bytes; the limit is %d", sum, limit) })
	if missing > 0 {
		d.addUnmet("max_total is %s: pinned and arriving dumps and logs alone have %s more; %s", bytesize.Exact(limit), bytesize.Exact(missing), onlyRepetitions)
	}
}

// keepFree removes dumps until the disk has the room that it shall have. What other limits took counts.
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

// onlyRepetitions ends what is said of a goal that cannot be reached: what removal cannot mend costs no crash its last dump.
const onlyRepetitions = "only repetitions of a crash are removed for it"

// addUnmet adds a limit that cannot be met, for people.
func (d *decision) addUnmet(format string, args ...any) {
	d.plan.Unmet = append(d.plan.Unmet, fmt.Sprintf(format, args...))
}

// size is what dumps have together.
func size(dumps []*dump) (sum uint64) {
	for _, x := range dumps {
		sum += x.Bytes()
	}
	return sum
}

// removeUntilFreed removes dumps with pages, the least worth first, until so many bytes are freed. When all that may go would not be
// enough, it takes repetitions only, and returns how many bytes would be missing without any dump that may go.
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

// byWorth sorts what is worth least first: by rank within its title, then by age.
func byWorth(left []*dump) []*dump {
	slices.SortStableFunc(left, func(a, b *dump) int { return cmp.Or(cmp.Compare(b.rank, a.rank), newestFirst(b, a)) })
	return left
}

// days formats a duration in whole days where it has some.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d < 2*day {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%dd", d/day)
}
