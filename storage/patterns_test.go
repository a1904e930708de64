package storage_test

import (
	"strings"
	"testing"

	"github.com/corehaul/corehaul/storage"
)

func TestPatterns(t *testing.T) {
	for _, tc := range []struct {
		patterns    string
		text        string
		whole, part bool
	}{
		{"web-1", "web-1", true, true},
		{"WEB-1", "web-1", true, true},
		{"web-1", "WEB-1", true, true},
		{"web", "web-1", false, true},
		{"web-*", "web-1", true, true},
		{"*", "", true, true},
		{"?", "", false, false},
		{"?", "é", true, true},
		{"we?-1", "web-1", true, true},
		{"*-1", "web-1-1", true, true},
		{"a*b*c", "aXbXbXc", true, true},
		{"a*b*c", "aXbXb", false, false},
		{"db1 web-1", "web-1", true, true},
		{"db1 db2", "web-1", false, false},
		{"[#1]", "Oops: 0002 [#1] SMP", false, true},
		{"oops*[#1", "Oops: 0002 [#1] SMP", false, true},
		{"bug: *fault", "BUG: unable to handle page fault for address", false, true},
	} {
		p := storage.Patterns(strings.Fields(tc.patterns))
		if strings.Contains(tc.patterns, ": ") {
			p = storage.Patterns{tc.patterns}
		}
		if p.Match(tc.text) != tc.whole || p.MatchPart(tc.text) != tc.part {
			t.Errorf("%q of %q: whole %v, part %v, want %v, %v", tc.patterns, tc.text, p.Match(tc.text), p.MatchPart(tc.text), tc.whole, tc.part)
		}
	}
	if none := storage.Patterns(nil); !none.MatchAll() || !none.Match("x") || !none.MatchPart("x") || !none.MatchPart() {
		t.Error("no pattern does not choose every text")
	}
	hostile := storage.Patterns{strings.Repeat("*a", 500) + "b"}
	if hostile.Match(strings.Repeat("a", 20000)) {
		t.Error("a pattern matches a text without its last letter")
	}
}
