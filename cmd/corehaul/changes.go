package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/receiver/sshd"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// setting is a value of a configuration.
type setting struct {
	text  string // for people
	exact any    // what is compared; texts of sizes are rounded
	live  bool   // a reload makes it count
}

// settings are those of a configuration, by key. Those of a rule are "rule 1", "rule 2".
type settings map[string]setting

// settings lists the values of a configuration, and what is in the files that it names. live has the keys that a reload makes count,
// rules and retention apart, which always do.
func (c *serveConfig) settings(t *trust, live []string) settings {
	all := settings{}
	c.flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "config" {
			return
		}
		s := setting{text: f.Value.String(), live: slices.Contains(live, f.Name)}
		s.exact = s.text
		if n, ok := f.Value.(*cli.BytesValue); ok {
			s.exact = *n
		}
		all[keyOf(f.Name)] = s
	})
	for i := range c.rules {
		text := ruleText(&c.rules[i])
		all[fmt.Sprintf("rule %d", i+1)] = setting{text: text, exact: c.rules[i], live: true}
	}
	maps.Copy(all, c.policy.settings())
	if t.receiver != nil {
		key, ca := corehaultls.PinOf(t.receiver.Certificate.Leaf), sha256.Sum256(t.receiver.CA.Raw)
		all[receiverKey] = setting{text: key.String(), exact: key, live: true}
		all["certificate of the CA"] = setting{text: "sha256:" + hex.EncodeToString(ca[:]), exact: ca, live: true}
		own := sha256.Sum256(t.receiver.Certificate.Leaf.Raw)
		all["certificate of the receiver"] = setting{text: "sha256:" + hex.EncodeToString(own[:]), exact: own, live: true}
	}
	if t.keys != nil {
		all["SSH keys"] = keysSetting(t.keys)
	}
	return all
}

// receiverKey is the setting with the key that senders know the receiver by.
const receiverKey = "key of the receiver"

// settings lists the limits.
func (r *retentionFile) settings() settings {
	all := settings{}
	add := func(key, text string, exact any, is bool) {
		if is {
			all["retention."+key] = setting{text: text, exact: exact, live: true}
		}
	}
	add("max_age", r.MaxAge.String(), r.MaxAge, r.MaxAge > 0)
	add("max_per_host", fmt.Sprint(r.MaxPerHost), r.MaxPerHost, r.MaxPerHost > 0)
	if n := r.MaxPerCrash; n != nil {
		add("max_per_crash", fmt.Sprint(*n), *n, *n > 0)
	}
	add("max_total", r.MaxTotal.String(), r.MaxTotal, r.MaxTotal > 0)
	add("keep_free", r.KeepFree.String(), r.KeepFree, r.KeepFree > 0)
	return all
}

// keysSetting is what authorized keys let in.
func keysSetting(keys *sshd.Keys) setting {
	var list []string
	keys.Each(func(e *sshd.Entry) { list = append(list, fmt.Sprint(e.Fingerprint(), e.Host, e.Legacy)) })
	slices.Sort(list)
	sum := sha256.Sum256([]byte(strings.Join(list, "\n")))
	return setting{text: fmt.Sprintf("%d (list %s)", len(list), hex.EncodeToString(sum[:4])), exact: sum, live: true}
}

// change is a setting that is another one now. Texts are for people; "none" is no value.
type change struct {
	Key string `json:"key"`
	Old string `json:"old"`
	New string `json:"new"`
}

func (c *change) String() string { return fmt.Sprintf("%s: %s -> %s", c.Key, c.Old, c.New) }

// diff returns the changes from s to now: those that a reload makes count, and those that need a restart.
func (s settings) diff(now settings) (live, restart []change) {
	keys := map[string]bool{}
	for key := range s {
		keys[key] = true
	}
	for key := range now {
		keys[key] = true
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		was, before := s[key]
		is, after := now[key]
		if before == after && was.exact == is.exact {
			continue
		}
		c := change{Key: key, Old: valueText(was), New: valueText(is)}
		if was.live || is.live {
			live = append(live, c)
		} else {
			restart = append(restart, c)
		}
	}
	return live, restart
}

func valueText(s setting) string {
	switch {
	case s.exact == nil:
		return "none"
	case s.text == "":
		return `""`
	}
	return s.text
}

// take makes the live settings of now those of s.
func (s settings) take(now settings) {
	maps.DeleteFunc(s, func(_ string, old setting) bool { return old.live })
	for key, is := range now {
		if is.live {
			s[key] = is
		}
	}
}
