// Package lazyregexp has regular expressions that are compiled when they are first used. The packages that read logs have more than a
// hundred. Compiled at the start, they took half of the time of every short command.
package lazyregexp

import (
	"os"
	"regexp"
	"strings"
	"sync"
)

// Regexp is a regular expression. Its methods are those of regexp.Regexp. Several goroutines may use it at once.
type Regexp struct {
	compiled func() *regexp.Regexp
}

// test says that this program is a test. There, New compiles at once, so that an expression that is wrong fails every test of its package.
var test = strings.HasSuffix(os.Args[0], ".test")

// New returns the regular expression of a pattern. Its first use panics if the pattern is wrong.
func New(pattern string) *Regexp {
	r := lazy(pattern)
	if test {
		r.compiled()
	}
	return r
}

func lazy(pattern string) *Regexp {
	return &Regexp{sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })}
}

func (r *Regexp) Match(b []byte) bool { return r.compiled().Match(b) }

func (r *Regexp) MatchString(s string) bool { return r.compiled().MatchString(s) }

func (r *Regexp) FindString(s string) string { return r.compiled().FindString(s) }

func (r *Regexp) FindStringIndex(s string) []int { return r.compiled().FindStringIndex(s) }

func (r *Regexp) FindStringSubmatch(s string) []string { return r.compiled().FindStringSubmatch(s) }

func (r *Regexp) FindStringSubmatchIndex(s string) []int {
	return r.compiled().FindStringSubmatchIndex(s)
}

func (r *Regexp) FindAllStringSubmatch(s string, n int) [][]string {
	return r.compiled().FindAllStringSubmatch(s, n)
}

func (r *Regexp) ReplaceAllString(s, with string) string {
	return r.compiled().ReplaceAllString(s, with)
}

func (r *Regexp) SubexpIndex(name string) int { return r.compiled().SubexpIndex(name) }
