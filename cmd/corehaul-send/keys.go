package main

import (
	"errors"
	"fmt"
	"net/url"
	"sync"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/sender"
	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/sshdial"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// keys are the files that targets need: an identity for tls://, a private key and known hosts for ssh://.
type keys struct {
	identity, sshKey, knownHosts string
}

// missing returns an error that names the flag that a target needs.
func (k keys) missing(to []string) error {
	for _, t := range to {
		switch scheme := config.Scheme(t); {
		case scheme == "tls" && k.identity == "":
			return cli.WithHint(cli.Usagef("no identity for %s: --identity is missing", t), "'corehaul ca issue HOST --dir DIR --out FILE' on the receiver creates one")
		case scheme == "ssh" && k.sshKey == "":
			return cli.WithHint(cli.Usagef("no key for %s: --ssh-key is missing", t), "ssh-keygen -t ed25519 -N '' -f FILE creates one; add FILE.pub to the receiver's authorized keys")
		case scheme == "ssh" && k.knownHosts == "":
			return cli.WithHint(cli.Usagef("no host key for %s: --known-hosts is missing", t), "'corehaul known-hosts HOST' on the receiver prints it; or use 'ssh-keyscan HOST > FILE' and compare the key with the server's")
		}
	}
	return nil
}

// dialer returns a Dialer for the targets that have valid keys, and the errors of the other targets.
func (k keys) dialer(to []string) (dial sender.Dialer, good []string, wrong []error) {
	schemes := map[string]sender.Dialer{}
	identity := sync.OnceValue(func() error {
		id, err := loadIdentity(k.identity)
		if err == nil {
			schemes["tls"] = sender.DialTLS(corehaultls.ClientConfig(id))
		}
		return err
	})
	client := sync.OnceValues(func() (*sshdial.Client, error) {
		c, err := sshdial.New(k.sshKey, k.knownHosts)
		if err == nil {
			schemes["ssh"] = sender.DialSSH(c, tool())
		}
		return c, err
	})
	for _, t := range to {
		err := error(nil)
		if config.Scheme(t) == "ssh" {
			err = checkKnown(client, t)
		} else {
			err = identity()
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", t, err))
			continue
		}
		good = append(good, t)
	}
	return sender.DialBy(schemes), good, wrong
}

func loadIdentity(file string) (*corehaultls.Identity, error) {
	id, err := corehaultls.LoadIdentity(file)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return id, nil
}

// checkKnown returns an error if known_hosts does not have the target's host.
func checkKnown(client func() (*sshdial.Client, error), target string) error {
	c, err := client()
	if err != nil {
		return err
	}
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	return c.CheckKnown(sshdial.Addr(u))
}

// checkKeys checks the keys of a configuration. An identity may be there for targets that only the kernel command
// line names.
func checkKeys(c *config.File) error {
	if c.Identity != "" {
		if _, err := loadIdentity(c.Identity); err != nil {
			return err
		}
	}
	_, _, wrong := keys{c.Identity, c.SSHKey, c.KnownHosts}.dialer(c.To)
	return errors.Join(wrong...)
}
