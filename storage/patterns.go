package storage

import "strings"

// Patterns choose texts. An asterisk stands for any characters, a question mark for one; letter case does not count. A text is
// chosen if one of the patterns matches it. No pattern chooses every text.
type Patterns []string

// MatchAll reports whether there is nothing to choose by.
func (p Patterns) MatchAll() bool { return len(p) == 0 }

// Match reports whether a pattern matches the whole text.
func (p Patterns) Match(text string) bool {
	text = strings.ToLower(text)
	for _, pattern := range p {
		if glob(strings.ToLower(pattern), text) {
			return true
		}
	}
	return len(p) == 0
}

// MatchPart reports whether a pattern matches a part of one of the texts.
func (p Patterns) MatchPart(texts ...string) bool {
	for _, text := range texts {
		if p.parts().Match(text) {
			return true
		}
	}
	return len(p) == 0
}

// parts returns the patterns for a whole text that has a match in it.
func (p Patterns) parts() Patterns {
	out := make(Patterns, len(p))
	for i, pattern := range p {
		out[i] = "*" + pattern + "*"
	}
	return out
}

// Globs returns the patterns as the operator GLOB of SQLite has them, where a bracket begins a set. With part they match a part of a
// text.
func (p Patterns) Globs(part bool) []string {
	if part {
		p = p.parts()
	}
	globs := make([]string, len(p))
	for i, pattern := range p {
		globs[i] = strings.ReplaceAll(pattern, "[", "[[]")
	}
	return globs
}

// glob reports whether pattern matches text. Behind each asterisk it goes on with the shortest text that fits, so it takes at most
// the product of both lengths.
func glob(pattern, text string) bool {
	star, from := -1, 0
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, t
			p++
		case p < len(pattern) && pattern[p] == text[t]:
			p, t = p+1, t+1
		case p < len(pattern) && pattern[p] == '?':
			p, t = p+1, t+runeLen(text[t:])
		case star >= 0:
			from++
			p, t = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// runeLen is the length of the first character of a text.
func runeLen(text string) int {
	for i := range text {
		if i > 0 {
			return i
		}
	}
	return len(text)
}
