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

// missingKey returns an error that names the flag that a target needs.
func missingKey(k config.Keys, to []string) error {
	for _, t := range to {
		if m := k.Missing(t); m != nil {
			return cli.WithHint(cli.Usagef("no %s for %s: --%s is missing", m.What, t, m.Flag), m.Hint)
		}
	}
	return nil
}

// connector connects to the targets of one scheme.
type connector struct {
	// prepare loads the keys, once. The error is for all targets of the scheme.
	prepare func() (sender.Dialer, error)
	// check returns what is wrong with the keys for one target. It may be nil.
	check func(to string) error
}

// connectors returns the connectors of config.Schemes by their names. open opens local directories, and
// over makes the connections; nil stands for those of the system.
func connectors(k config.Keys, open sender.OpenDir, over sender.Connector) map[string]connector {
	client := sync.OnceValues(func() (*sshdial.Client, error) {
		c, err := sshdial.New(k.SSHKey, k.KnownHosts)
		if err == nil {
			c.Dial = over
		}
		return c, err
	})
	return map[string]connector{
		"tls": {prepare: func() (sender.Dialer, error) {
			id, err := loadIdentity(k.Identity)
			if err != nil {
				return nil, err
			}
			return sender.DialTLS(corehaultls.ClientConfig(id), over), nil
		}},
		"ssh": {
			prepare: func() (sender.Dialer, error) {
				c, err := client()
				if err != nil {
					return nil, err
				}
				return sender.DialSSH(c, tool()), nil
			},
			check: func(to string) error { return checkKnown(client, to) },
		},
		"nfs":  {prepare: func() (sender.Dialer, error) { return sender.DialNFS(tool(), over), nil }},
		"file": {prepare: func() (sender.Dialer, error) { return sender.DialFile(tool(), open), nil }},
	}
}

// dialer returns a Dialer for the targets that have valid keys, and the errors of the other targets. open and over are those of
// connectors.
func dialer(k config.Keys, to []string, open sender.OpenDir, over sender.Connector) (dial sender.Dialer, good []string, wrong []error) {
	dialers, failed, known := map[string]sender.Dialer{}, map[string]error{}, connectors(k, open, over)
	for _, t := range to {
		scheme := config.SchemeName(t)
		c := known[scheme]
		if dialers[scheme] == nil && failed[scheme] == nil {
			dialers[scheme], failed[scheme] = c.prepare()
		}
		err := failed[scheme]
		if err == nil && c.check != nil {
			err = c.check(t)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", t, err))
			continue
		}
		good = append(good, t)
	}
	return sender.DialBy(dialers), good, wrong
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
			return cli.Usage(err)
		}
	}
	_, _, wrong := dialer(c.Keys(), c.To, sender.OpenMounted, nil)
	if len(wrong) == 0 {
		return nil
	}
	return cli.Usage(errors.Join(wrong...))
}
