package config

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/sender/localfs"
	"github.com/corehaul/corehaul/sender/nfsfs/nfs3"
)

// Scheme is a kind of target. The schemes are the registry of what a target may be. How to connect to a target of each is in
// the command, because that needs the keys.
type Scheme struct {
	// Name stands before "://".
	Name string
	// Form is how a target is written.
	Form string
	// Keys are the files that a target needs.
	Keys  []Key
	check func(to string, u *url.URL) error
}

// Schemes are all kinds of targets.
var Schemes = []Scheme{
	{Name: "tls", Form: "tls://HOST:PORT", Keys: []Key{identityKey}, check: checkTLS},
	{Name: "ssh", Form: "ssh://USER@HOST[:PORT][/PATH]", Keys: []Key{sshKey, knownHostsKey}, check: checkSSH},
	{Name: "nfs", Form: nfs3.Form, check: checkNFS},
	{Name: "file", Form: localfs.Form, check: checkFile},
}

// Keys are the names of the files that targets need.
type Keys struct{ Identity, SSHKey, KnownHosts string }

// Key is one of these files.
type Key struct {
	// Name is its key in the configuration file. The flag of the same meaning is Flag.
	Name, Flag string
	// What says what it is, MadeBy how to make one, Hint the same in more words.
	What, MadeBy, Hint string
	// File returns its name.
	File func(Keys) string
}

var (
	identityKey = Key{
		Name: "identity", Flag: "identity", What: "identity", MadeBy: "made by corehaul ca issue",
		Hint: "'corehaul ca issue HOST -o FILE' on the receiver creates one",
		File: func(k Keys) string { return k.Identity },
	}
	sshKey = Key{
		Name: "ssh_key", Flag: "ssh-key", What: "key", MadeBy: "made by ssh-keygen -N ''",
		Hint: "ssh-keygen -t ed25519 -N '' -f FILE creates one; add FILE.pub to the receiver's authorized keys",
		File: func(k Keys) string { return k.SSHKey },
	}
	knownHostsKey = Key{
		Name: "known_hosts", Flag: "known-hosts", What: "host key", MadeBy: "made by ssh-keyscan",
		Hint: "'corehaul known-hosts HOST' on the receiver prints it; or use 'ssh-keyscan HOST > FILE' and compare the key with the server's",
		File: func(k Keys) string { return k.KnownHosts },
	}
)

// Missing returns the first key that a target needs and that has no name, nil if there is none.
func (k Keys) Missing(to string) *Key {
	s := schemeOf(to)
	if s == nil {
		return nil
	}
	for i := range s.Keys {
		if s.Keys[i].File(k) == "" {
			return &s.Keys[i]
		}
	}
	return nil
}

// SchemeName returns the name of a target's scheme.
func SchemeName(to string) string {
	scheme, _, _ := strings.Cut(to, "://")
	return scheme
}

// schemeOf returns the scheme of a target, nil if there is none of this name.
func schemeOf(to string) *Scheme {
	for i := range Schemes {
		if Schemes[i].Name == SchemeName(to) {
			return &Schemes[i]
		}
	}
	return nil
}

// targetForms lists the forms of a target.
func targetForms() string {
	list := Schemes[0].Form
	for _, s := range Schemes[1:] {
		list += " or " + s.Form
	}
	return list
}

// CheckTarget returns what is wrong with a target.
func CheckTarget(to string) error {
	u, err := url.Parse(to)
	if err != nil { // its text is about grammar, and may have a password in it
		return fmt.Errorf("target %q: write %s", withoutUser(to), targetForms())
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
		return fmt.Errorf("target %q: port %s is not between 1 and 65535", to, u.Port())
	}
	s := schemeOf(to)
	if s == nil {
		return fmt.Errorf("target %q: write %s", to, targetForms())
	}
	return s.check(to, u)
}

// withoutUser leaves out of a target that is no URL what may be a user and a password.
func withoutUser(to string) string {
	if at := strings.LastIndexByte(to, '@'); at >= 0 {
		return "..." + to[at:]
	}
	return to
}

// checkNoQuery refuses what may follow a path.
func checkNoQuery(to, form string, u *url.URL) error {
	if u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("target %q: remove what follows the address; write %s", to, form)
	}
	return nil
}

func checkTLS(to string, u *url.URL) error {
	switch {
	case u.Hostname() == "" || u.Port() == "":
		return fmt.Errorf("target %q: host or port is missing, write tls://HOST:PORT", to)
	case u.User != nil || (u.Path != "" && u.Path != "/"):
		return fmt.Errorf("target %q: remove what stands around HOST:PORT", to)
	}
	return checkNoQuery(to, "tls://HOST:PORT", u)
}

func checkSSH(to string, u *url.URL) error {
	_, password := u.User.Password()
	switch {
	case u.User.Username() == "" || u.Hostname() == "":
		return fmt.Errorf("target %q: user or host is missing, write ssh://USER@HOST[:PORT]", to)
	case password:
		// The error must not contain the password.
		return fmt.Errorf("target ssh://%s@%s: a password cannot be used, name a key instead", u.User.Username(), u.Host)
	}
	return checkNoQuery(to, "ssh://USER@HOST[:PORT][/PATH]", u)
}

func checkNFS(to string, u *url.URL) error {
	if _, _, err := nfs3.ParseURL(u); err != nil {
		return fmt.Errorf("target %q: %w", to, err)
	}
	return nil
}

func checkFile(to string, u *url.URL) error {
	if _, err := localfs.ParseURL(u); err != nil {
		return fmt.Errorf("target %q: %w", to, err)
	}
	return nil
}

// errNotLocal means that a target needs the network.
var errNotLocal = errors.New("not a file:// target")

// LocalTarget reads a target in a local file system. It returns an error for all others.
func LocalTarget(to string) (localfs.Target, error) {
	if SchemeName(to) != "file" {
		return localfs.Target{}, errNotLocal
	}
	u, err := url.Parse(to)
	if err != nil {
		return localfs.Target{}, err
	}
	return localfs.ParseURL(u)
}

// NeedsNetwork reports whether a target is not in a local file system.
func NeedsNetwork(to string) bool { return SchemeName(to) != "file" }
