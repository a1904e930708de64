package uts_test

import (
	"encoding/json"
	"testing"

	"github.com/corehaul/corehaul/uts"
)

func TestForHeader(t *testing.T) {
	for _, tc := range []struct {
		name      string
		have, got uts.Name
	}{
		{"nothing known", uts.Name{Sysname: "Linux"}, uts.Name{Sysname: "Linux"}},
		{"the machine alone", uts.Name{Machine: "x86_64"}, uts.Name{Release: uts.Unknown, Version: uts.Unknown, Machine: "x86_64"}},
		{"all known", uts.Name{Release: "6.1", Version: "#1", Machine: "x86_64"}, uts.Name{Release: "6.1", Version: "#1", Machine: "x86_64"}},
	} {
		if got := tc.have.ForHeader(); got != tc.got {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.got)
		}
	}
}

// TestFieldsAndMembers holds the order of struct new_utsname and the members of HELLO.
func TestFieldsAndMembers(t *testing.T) {
	var n uts.Name
	for i, f := range n.Fields() {
		*f = string(rune('a' + i))
	}
	b, err := json.Marshal(&n)
	const want = `{"sysname":"a","nodename":"b","release":"c","version":"d","machine":"e","domainname":"f"}`
	if err != nil || string(b) != want {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
	if b, err := json.Marshal(&uts.Name{}); err != nil || string(b) != "{}" {
		t.Errorf("got %s, %v: fields that are not known are left out", b, err)
	}
}
