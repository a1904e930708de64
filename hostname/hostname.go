// Package hostname holds the one rule for the names of sending hosts. A transport proves the name: the certificate of a
// TLS identity, the key's line in the authorized keys, the command of OpenSSH's server. Dumps are filed under it, so
// it is the name of a directory, stands in the journal of each dump, and goes to consoles and logs.
//
// A name has 1 to [MaxLen] bytes of A-Z, a-z, 0-9, dot, dash and underscore; the first one is a letter, a digit or an
// underscore. Letter case counts. The rule has every name that was ever filed. It is narrower than DNS in length:
// the journal has room for 64 bytes, so a longer name (DNS takes 253) never had a dump. It is wider where DNS is of no use to a
// directory: `_build7`, `a..b` and `a.` are fine.
//
// The input is untrusted. All functions are safe for concurrent use.
package hostname

import "fmt"

// MaxLen is the length limit of a name in bytes. It is that of the host in the journal: see docs/layout.md.
const MaxLen = 64

// Rule is the rule in words, for hints.
const Rule = "a host name has 1 to 64 of A-Z a-z 0-9 . - _ and begins with a letter, a digit or _"

// Error says why a name is refused.
type Error struct {
	Name   string
	Reason string
}

// Error quotes the name and says which part of the rule it breaks.
func (e *Error) Error() string { return fmt.Sprintf("host name %.80q: %s", e.Name, e.Reason) }

// Hints tells what to do.
func (e *Error) Hints() []string { return []string{"use another name for this host: " + Rule} }

// Check returns an [*Error] unless name may be the name of a host.
func Check(name string) error {
	bad := func(reason string) error { return &Error{Name: name, Reason: reason} }
	switch {
	case name == "":
		return bad("it is empty")
	case len(name) > MaxLen:
		return bad(fmt.Sprintf("it has %d bytes, more than %d", len(name), MaxLen))
	case name[0] == '.' || name[0] == '-':
		return bad("it begins with a dot or a dash")
	}
	for i := range len(name) {
		if !allowed(name[i]) {
			return bad("it has characters other than A-Z a-z 0-9 . - _")
		}
	}
	return nil
}

func allowed(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '.' || b == '-' || b == '_'
}
