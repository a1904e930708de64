package oops

import (
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
	"github.com/corehaul/corehaul/kernel/headline"
)

// maxTitle is the longest title in bytes.
const maxTitle = 120

// classify sets kind, detail, title and function.
func (p *parser) classify(d *draft) {
	r := p.r
	head := plainHeadline(r.Headline)
	s, m := shapeOf(head)
	r.Kind = s.kind
	r.Detail = p.detail(s, m)
	r.Title = p.expand(s, m, head)
	where := s.blame(p, s, head)
	if where == nil {
		r.Title = strings.Replace(r.Title, "/usb_", " in usb_", 1)
	} else {
		r.Function, r.Module = baseName(where.Function), either(where.Module, p.moduleOf(where.Function))
		if name := where.as; name != "" {
			r.Function = name
		}
		r.Title = withFunction(r.Title, r.Function)
	}
	p.refine(d)
	r.Title = sanitize(r.Title)
}

// moduleOf returns the module of a function in the blamed trace. Headlines that were decoded have the module behind the file.
func (p *parser) moduleOf(function string) string {
	for _, t := range p.r.Traces[:min(p.blamed+1, p.own)] {
		for _, f := range t.Frames {
			if f.Function == function {
				return f.Module
			}
		}
	}
	return ""
}

// detail returns what names the kind more closely.
func (p *parser) detail(s shape, m []string) string {
	if text, ok := strings.CutPrefix(p.r.Headline, headline.PanicPrefix); ok {
		return strings.TrimSpace(text)
	}
	switch s.kind {
	case KASAN, KMSAN, KFENCE, UBSAN, KCSAN, SlabCorruption:
		if bug := sanitizer.FindStringSubmatch(p.r.Headline); bug != nil {
			return strings.TrimSpace(bug[1])
		}
		return m[len(m)-1]
	}
	return ""
}

// sanitizer matches what a sanitizer names the bug: "BUG: KASAN: slab-use-after-free in ...".
var sanitizer = lazyregexp.New(`(?:KASAN|KMSAN|KCSAN|KFENCE|UBSAN): ([^:]+?)(?: in | at | on address |: |$)`)

// expand fills a title.
func (p *parser) expand(s shape, m []string, head string) string {
	if s.title == "" { // of no shape, or of a machine's own die()
		return dieText(head)
	}
	title := s.title
	for i := len(m) - 1; i > 0; i-- {
		title = strings.ReplaceAll(title, "$"+strconv.Itoa(i), m[i])
	}
	return strings.TrimSpace(strings.ReplaceAll(title, "%a", p.access))
}

// dieText is a line of die() without its numbers, and without the task that sparc puts before it: "illegal operation: 0001
// ilc:1 [#1] SMP" is "illegal operation".
func dieText(head string) string {
	i := dieNumbers.FindStringIndex(head)
	if i == nil {
		return head
	}
	head = strings.TrimPrefix(head[:i[0]], "Oops: ")
	return head[len(dieTask.FindString(head)):]
}

var dieTask = lazyregexp.New(`^\S{1,16}\(\d+\): `)

var dieNumbers = lazyregexp.New(`(?:: (?:0x)?[0-9a-f]+(?: ilc:\d)?|, sig: \d+)?:? ?\[#\d+\].*$|, sig: \d+$`)

// withFunction adds the function to a title. A title "WARNING/usb_submit_urb" has its function in the middle.
func withFunction(title, function string) string {
	if before, after, ok := strings.Cut(title, "/usb_"); ok {
		return before + " in " + function + "/usb_" + after
	}
	return title + " in " + function
}

// refine tells kinds apart that have the same headline.
func (p *parser) refine(d *draft) {
	r := p.r
	switch {
	case r.Kind == NullDereference && r.Function == "sysrq_handle_crash":
		r.Kind = Sysrq // until 5.3, sysrq-c wrote to a null pointer
	case (r.Kind == NullDereference || r.Kind == PageFault) && r.IP != nil && r.IP.Function == "" && inFirstPage(r.IP.Address):
		r.Kind = CallThroughNull
	case r.Kind == PageFault && r.FaultAddress != "" && inFirstPage(r.FaultAddress):
		r.Kind = NullDereference
	case r.Kind == Bug || r.Kind == InvalidOpcode:
		r.Kind = p.kindOfBug(d)
	}
}

// kindOfBug reads the lines before "kernel BUG at", where a checker says why.
func (p *parser) kindOfBug(d *draft) Kind {
	if ip := p.r.IP; ip != nil && strings.HasPrefix(strings.TrimLeft(ip.Function, "_"), "fortify_") {
		return Fortify
	}
	for _, text := range d.before() {
		for _, c := range checkers {
			if c.re.MatchString(text) {
				return c.kind
			}
		}
	}
	return p.r.Kind
}

// before returns what the report's caller printed right before the headline: two lines "cut here" and what is between them.
func (d *draft) before() []string {
	var list []string
	for _, l := range d.prelude {
		if l.Caller == d.lines[0].Caller && !l.Program {
			list = append(list, l.Text)
		}
	}
	return list[max(0, len(list)-4):]
}

// checkers are messages before BUG(). Sources: lib/string_helpers.c, arch/x86/kernel/traps.c.
var checkers = []struct {
	re   *lazyregexp.Regexp
	kind Kind
}{
	{lazyregexp.New(`^(?:traps: )?Missing ENDBR: `), CFI},
	{lazyregexp.New(`^CFI failure at `), CFI},
	{lazyregexp.New(`^detected buffer overflow in |^(?:memcpy|memset|str\w+): detected buffer overflow`), Fortify},
}

// volatile are the parts of a title that differ between two equal crashes. They become the words that syzbot uses.
var volatile = []struct {
	re   *lazyregexp.Regexp
	with string
}{
	{lazyregexp.New(`([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+`), "$1"},
	{lazyregexp.New(`([^a-zA-Z0-9])(?:0x)?[0-9a-f]{6,}\b`), "${1}ADDR"},
	{lazyregexp.New(`\b0x[0-9a-f]+\b`), "ADDR"},
	{lazyregexp.New(`(\.[a-zA-Z]\w*)(?::\d+)+`), "$1:LINE"},
	{lazyregexp.New(`\bCPU#\d+`), "CPU"},
	{lazyregexp.New(`\b\d+\b`), "NUM"},
	{lazyregexp.New(`\s+`), " "},
}

// sanitize replaces what differs between two equal crashes, and cuts a title.
func sanitize(title string) string {
	for _, v := range volatile {
		title = v.re.ReplaceAllString(title, v.with)
	}
	title = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, title)
	return strings.TrimSpace(title[:min(len(title), maxTitle)])
}
