// Package hostname holds the one rule for the names of sending hosts. A transport proves the name: by a TLS
// certificate, by a line of the authorized keys, or by the command of OpenSSH's server. The name becomes a directory,
// is a field of each journal, and appears on consoles and in logs.
//
// A name has 1 to [MaxLen] bytes of A-Z, a-z, 0-9, dot, dash and underscore. The first one is a letter, a digit or an
// underscore. Letter case counts. The rule is shorter than that of DNS (253 bytes), because the journal has room for
// 64. It also accepts names that DNS does not: `_build7`, `a..b`, `a.`.
//
// The input is untrusted. All functions are safe for concurrent use.
package hostname

import "fmt"

// MaxLen is the longest name in bytes: the host field of the journal, see docs/layout.md.
const MaxLen = 64

// Rule is the rule for hints in messages.
const Rule = "a host name has 1 to 64 of A-Z a-z 0-9 . - _ and begins with a letter, a digit or _"

// Error says why a name is refused.
type Error struct {
	Name   string
	Reason string
}

// Error quotes the name and says which part of the rule it violates.
func (e *Error) Error() string { return fmt.Sprintf("host name %.80q: %s", e.Name, e.Reason) }

// Hints says what to do next.
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
