package config

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// targetForms lists the forms of a target.
const targetForms = "tls://HOST:PORT or ssh://USER@HOST[:PORT][/PATH]"

// Scheme returns the scheme of a target: tls or ssh.
func Scheme(to string) string {
	scheme, _, _ := strings.Cut(to, "://")
	return scheme
}

// CheckTarget returns what is wrong with a target.
func CheckTarget(to string) error {
	u, err := url.Parse(to)
	if err != nil {
		return fmt.Errorf("target %q: %w", to, err)
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || n == 0) {
		return fmt.Errorf("target %q: port %s is not between 1 and 65535", to, u.Port())
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("target %q: remove what follows the address; write %s", to, targetForms)
	}
	switch u.Scheme {
	case "tls":
		return checkTLS(to, u)
	case "ssh":
		return checkSSH(to, u)
	}
	return fmt.Errorf("target %q: write %s", to, targetForms)
}

func checkTLS(to string, u *url.URL) error {
	switch {
	case u.Hostname() == "" || u.Port() == "":
		return fmt.Errorf("target %q: host or port is missing, write tls://HOST:PORT", to)
	case u.User != nil || (u.Path != "" && u.Path != "/"):
		return fmt.Errorf("target %q: remove what stands around HOST:PORT", to)
	}
	return nil
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
	return nil
}
