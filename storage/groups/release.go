package groups

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// Order is how the release of one kernel stands to that of another.
type Order int

// Orders of CompareReleases.
const (
	Unordered Order = iota // nothing says which one is later
	Older
	Same
	Newer
)

// CompareReleases says how the kernel release a stands to b: utsname.release, as uname -r prints it. Numbers are compared as numbers and rc
// before its release: 6.1.0-9-amd64 is older than 6.1.0-10-amd64, and 6.1.0-rc3 older than 6.1.0.
//
// Distributions number their builds each in their own way and carry fixes back: Debian's 6.1.0-25 has the fixes of 6.1.106. So releases of
// two distributions, or of two flavours that count apart (Ubuntu's generic and aws), are Unordered. A release without the words of a
// distribution behind its build number (6.1.0-10) compares with those of each.
//
// Forms of releases: the kernel's Makefile (KERNELRELEASE) and scripts/setlocalversion; the packages of Debian, Ubuntu, Fedora, Red Hat,
// SUSE and Amazon.
func CompareReleases(a, b string) Order {
	if a == b && a != "" {
		return Same
	}
	x, y := parseRelease(a), parseRelease(b)
	if x == nil || y == nil || x.vendor != y.vendor && !x.anyVendor() && !y.anyVendor() {
		return Unordered
	}
	c := cmp.Or(compareBase(x.base, y.base), cmp.Compare(x.candidate, y.candidate))
	if c == 0 && x.stream != y.stream {
		return Unordered
	}
	return orderOf(cmp.Or(c, slices.Compare(x.build, y.build)))
}

func orderOf(c int) Order { return Same + Order(c) }

// ValidRelease reports whether a text is a release that CompareReleases can order with others.
func ValidRelease(s string) bool { return releaseForm.MatchString(s) && parseRelease(s) != nil }

// release is the parts of a kernel release by which it is ordered.
type release struct {
	base      []uint64 // 6, 1, 0
	candidate uint64   // of -rcN, or noCandidate
	build     []uint64 // the numbers behind it: those of the distribution's build
	vendor    string   // the words behind it: who builds and numbers it
	stream    string   // what says that builds of one base were not made one after the other: "+", a commit, deb11
}

// noCandidate is the number of a release that is no release candidate: it is later than all of them.
const noCandidate = 1 << 32

// anyVendor reports whether the release has build numbers and does not say whose.
func (r *release) anyVendor() bool { return r.vendor == "" && len(r.build) > 0 && r.stream == "" }

// maxRelease is more than the kernel has room for: __NEW_UTS_LEN is 64.
const maxRelease = 128

// Patterns of the parts of a release.
var (
	releaseForm   = lazyregexp.New(`^[0-9][A-Za-z0-9.+_~-]*$`)
	baseForm      = lazyregexp.New(`^[0-9]+(\.[0-9]+)+`)
	candidateForm = lazyregexp.New(`^rc[0-9]+$`)
	commitForm    = lazyregexp.New(`^g[0-9a-f]{7,}$|^[0-9]+git[0-9a-f]*$`) // of git describe; of Fedora's snapshots
	debianForm    = lazyregexp.New(`-(amd64|arm64|arm64-16k|armmp|armmp-lpae|686|686-pae|powerpc64le|s390x|riscv64|loong64)$`)
	debForm       = lazyregexp.New(`^(deb[0-9]+|bpo[0-9]*)$`)
)

// parseRelease returns the parts of a release, nil if it has no form of one.
func parseRelease(s string) *release {
	base := baseForm.FindString(s)
	if base == "" || len(s) > maxRelease {
		return nil
	}
	r := &release{candidate: noCandidate}
	var words []string
	rest := s[len(base):]
	if debianForm.MatchString(rest) {
		words, rest = []string{"debian"}, debianForm.ReplaceAllString(rest, "")
	}
	rest, more, plus := strings.Cut(rest, "+")
	for text := range strings.FieldsFuncSeq(base, func(c rune) bool { return c == '.' }) {
		if !r.number(&r.base, text) {
			return nil
		}
	}
	words, ok := r.words(words, rest)
	if !ok {
		return nil
	}
	switch {
	case plus && more == "":
		r.stream += "+"
	case plus && len(words) > 0 && words[0] == "debian": // 6.12.38+deb13
		more = strings.TrimLeft(debPrefix.ReplaceAllString(more, ""), ".")
		words, ok = r.words(words, more)
	case plus && !isRedHat(words): // Red Hat's +debug and +rt are built and numbered with the rest
		words, ok = r.words(words, more)
	}
	r.vendor = strings.Join(words, "-")
	return r.ifOK(ok)
}

var debPrefix = lazyregexp.New(`^(deb[0-9]+|bpo[0-9]*)`)

func (r *release) ifOK(ok bool) *release {
	if !ok {
		return nil
	}
	return r
}

// number appends a number to a list.
func (r *release) number(to *[]uint64, text string) bool {
	n, err := strconv.ParseUint(text, 10, 64)
	*to = append(*to, n)
	return err == nil
}

// words takes apart what stands behind the base, and appends the words of the vendor to words.
func (r *release) words(words []string, text string) ([]string, bool) {
	for word := range strings.FieldsFuncSeq(text, func(c rune) bool { return c == '-' || c == '.' || c == '~' }) {
		switch {
		case strings.Trim(word, "0123456789") == "":
			if !r.number(&r.build, word) {
				return nil, false
			}
		case candidateForm.MatchString(word):
			n, err := strconv.ParseUint(word[len("rc"):], 10, 31)
			if err != nil {
				return nil, false
			}
			r.candidate = n
		case commitForm.MatchString(word) || debForm.MatchString(word):
			r.stream += word
		default:
			words = appendVendor(words, word)
		}
	}
	return words, true
}

// appendVendor appends a word of the vendor in the form that all releases have that the vendor numbers together.
func appendVendor(words []string, word string) []string {
	debian := len(words) > 0 && words[0] == "debian"
	switch {
	case machines[word] || debian && (word == "cloud" || word == "rt"):
		return words
	case strings.HasPrefix(word, "fc"), strings.HasPrefix(word, "amzn"): // both follow the numbers of kernel.org
		word = strings.TrimRight(word, "0123456789")
	case redHat.MatchString(word): // el9_3 follows el9_2; el9 does not follow el8
		word, _, _ = strings.Cut(word, "_")
	}
	return append(words, word)
}

var redHat = lazyregexp.New(`^el[0-9]+(_[0-9]+)?$`)

func isRedHat(words []string) bool { return slices.ContainsFunc(words, redHat.MatchString) }

// machines are the names of machines at the end of releases.
var machines = map[string]bool{
	"x86_64": true, "aarch64": true, "ppc64le": true, "s390x": true, "riscv64": true, "i686": true, "i386": true, "armv7hl": true, "loongarch64": true,
}

// compareBase compares 6.1 and 6.1.0 as equal.
func compareBase(a, b []uint64) int {
	for len(a) < len(b) {
		a = append(a, 0)
	}
	for len(b) < len(a) {
		b = append(b, 0)
	}
	return slices.Compare(a, b)
}
