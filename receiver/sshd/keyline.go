package sshd

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/hostname"
)

// Entry is one authorized key.
type Entry struct {
	// Host is the name under which its dumps are stored.
	Host string
	Key  ssh.PublicKey
	// Legacy lists the legacy algorithms that it may use.
	Legacy []string
	// Line of the file, from 1.
	Line int
}

// Fingerprint returns the fingerprint of the key as ssh-keygen -l prints it.
func (e *Entry) Fingerprint() string { return ssh.FingerprintSHA256(e.Key) }

// grants reports whether both entries give the same rights.
func (e *Entry) grants(other *Entry) bool {
	return other != nil && e.Host == other.Host && slices.Equal(e.Legacy, other.Legacy)
}

// LineError is a bad line of an authorized keys file.
type LineError struct {
	Path    string
	Line    int
	Problem string
	Hint    string
}

// Error names file, line and problem.
func (e *LineError) Error() string { return fmt.Sprintf("%s, line %d: %s", e.Path, e.Line, e.Problem) }

// Hints says what to do next.
func (e *LineError) Hints() []string {
	if e.Hint == "" {
		return nil
	}
	return []string{e.Hint}
}

// parseKeys reads an authorized keys file. The table has the keys by their bytes. It has no key of a bad line, nor a key
// of two lines, which may not mean the same.
func parseKeys(path string, text []byte) (table map[string]*Entry, bad []*LineError) {
	table = map[string]*Entry{}
	for n, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		entry, problem, hint := parseKeyLine(line)
		if problem != "" {
			bad = append(bad, &LineError{Path: path, Line: n + 1, Problem: problem, Hint: hint})
			continue
		}
		entry.Line = n + 1
		id := string(entry.Key.Marshal())
		if first, twice := table[id]; twice {
			bad = append(bad, &LineError{Path: path, Line: n + 1, Problem: fmt.Sprintf("duplicate of the key on line %d", first.Line), Hint: "each key belongs to one host"})
			first.Host = ""
			continue
		}
		table[id] = entry
	}
	for id, e := range table {
		if e.Host == "" {
			delete(table, id)
		}
	}
	return table, bad
}

const hostHint = `put host="NAME" before the key; ` + hostname.Rule

// parseKeyLine reads a line that is neither empty nor a comment. problem is empty if the line is good.
func parseKeyLine(line []byte) (e *Entry, problem, hint string) {
	key, comment, options, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		return nil, "not a public key in OpenSSH's format", "a line is: [options] type base64 host; ssh-keygen makes it, in the file that ends in .pub"
	}
	if _, cert := key.(*ssh.Certificate); cert || strings.Contains(key.Type(), "-cert-") {
		return nil, "a certificate, not a key", "put the public key itself here"
	}
	e = &Entry{Key: key, Host: comment}
	for _, o := range options {
		if problem, hint := e.option(o); problem != "" {
			return nil, problem, hint
		}
	}
	if err := hostname.Check(e.Host); err != nil {
		return nil, fmt.Sprintf("%.80q is not a valid host name", e.Host), hostHint
	}
	return e, "", ""
}

// harmless lists options that forbid what this server never does.
var harmless = []string{"restrict", "no-agent-forwarding", "no-port-forwarding", "no-pty", "no-user-rc", "no-x11-forwarding"}

// option applies one option, such as host="NAME".
func (e *Entry) option(text string) (problem, hint string) {
	name, value, hasValue := strings.Cut(text, "=")
	name = strings.ToLower(name)
	if hasValue {
		if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
			return fmt.Sprintf("option %s: its value is not quoted", name), fmt.Sprintf(`write %s="..."`, name)
		}
		value = strings.ReplaceAll(value[1:len(value)-1], `\"`, `"`)
	}
	switch {
	case name == "host" && hasValue:
		if hostname.Check(value) != nil {
			return fmt.Sprintf("host=%.80q is not a valid host name", value), hostHint
		}
		e.Host = value
	case name == "legacy" && hasValue:
		e.Legacy = strings.Split(value, ",")
		for _, algo := range e.Legacy {
			if !isLegacy(algo) {
				return fmt.Sprintf("legacy: %.40q is not a legacy algorithm", algo), "legacy algorithms are " + strings.Join(legacyNames(), ", ")
			}
		}
	case slices.Contains(harmless, name) && !hasValue:
	default:
		return fmt.Sprintf("unknown option %.40q", name), `options are host="NAME" and legacy="ALGORITHM,..."; without them, a key may do no more than send dumps`
	}
	return "", ""
}
