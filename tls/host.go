package tls

import (
	"fmt"
	"strings"
)

// MaxHostName is the length limit of a host name, that of DNS.
const MaxHostName = 253

// NameError says why a host name is refused.
type NameError struct {
	Name   string
	Reason string
}

// Error names the host name and the rule that it breaks.
func (e *NameError) Error() string {
	return fmt.Sprintf("host name %.64q: %s", e.Name, e.Reason)
}

// CheckHost returns a [NameError] unless name may be the name of a sending host. It
// becomes the name of a directory and goes to consoles and logs, so the grammar is
// narrow: 1 to MaxHostName of a-z A-Z 0-9 '.' '_' '-'; the first is no '.' or '-', the
// last no '.'; no "..". Case counts.
func CheckHost(name string) error {
	bad := func(reason string) error { return &NameError{Name: name, Reason: reason} }
	switch {
	case name == "":
		return bad("empty")
	case len(name) > MaxHostName:
		return bad(fmt.Sprintf("longer than %d bytes", MaxHostName))
	case name[0] == '.' || name[0] == '-':
		return bad("begins with a dot or a dash")
	case name[len(name)-1] == '.':
		return bad("ends with a dot")
	case strings.Contains(name, ".."):
		return bad("two dots in a row")
	}
	for i := range len(name) {
		if !hostByte(name[i]) {
			return bad("only letters, digits, '.', '_' and '-' are allowed")
		}
	}
	return nil
}

func hostByte(b byte) bool {
	switch {
	case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9':
		return true
	}
	return b == '.' || b == '_' || b == '-'
}
