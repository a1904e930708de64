package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/receiver/admission"
)

// maxRules bounds the rules of a configuration: each dump is compared with all of them.
const maxRules = 256

// ruleFile is one [[rule]] of the configuration file.
type ruleFile struct {
	Host          string            `toml:"host"`
	FreeBelow     *cli.BytesValue   `toml:"free_below"`
	NoRoom        bool              `toml:"no_room"`
	SameCrash     *int              `toml:"same_crash"`
	SameCrashFrom *admission.Scope  `toml:"same_crash_from"`
	Within        cli.DurationValue `toml:"within"`
	Then          admission.Action  `toml:"then"`

	// Older names of SameCrash and SameCrashFrom.
	SamePanic     *int             `toml:"same_panic"`
	SamePanicFrom *admission.Scope `toml:"same_panic_from"`
}

// checkRules converts the rules of the file. A problem names the line where its rule begins.
func (c *serveFile) checkRules() (found problems) {
	if len(c.Rules) > maxRules {
		return problems{c.problem("rule", fmt.Errorf("%d rules, more than %d", len(c.Rules), maxRules))}
	}
	for i := range c.Rules {
		key := fmt.Sprintf("rule %d", i+1)
		rule, err := c.Rules[i].rule(key, &c.old)
		if err != nil {
			found.add(c.problem(key, fmt.Errorf("%s: %w", rule.Name, err)))
			continue
		}
		c.rules = append(c.rules, rule)
	}
	return found
}

// rule converts one rule and checks it.
func (f *ruleFile) rule(name string, old *oldKeys) (admission.Rule, error) {
	rule := admission.Rule{Name: name, Host: f.Host, NoRoom: f.NoRoom, Then: f.Then, Within: time.Duration(f.Within)}
	if f.FreeBelow != nil {
		rule.FreeBelow = uint64(*f.FreeBelow)
	}
	if err := takeOld(&rule.SameCrash, f.SameCrash, f.SamePanic, "same_crash", "same_panic", old); err != nil {
		return rule, err
	}
	if err := takeOld(&rule.SameCrashFrom, f.SameCrashFrom, f.SamePanicFrom, "same_crash_from", "same_panic_from", old); err != nil {
		return rule, err
	}
	return rule, rule.Check()
}

// ruleText is a rule as a configuration file has it, in one line.
func ruleText(r *admission.Rule) string {
	var parts []string
	add := func(is bool, format string, args ...any) {
		if is {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	below, within := cli.BytesValue(r.FreeBelow), cli.DurationValue(r.Within)
	add(r.Host != "", "host = %q", r.Host)
	add(r.FreeBelow > 0, "free_below = %q", below.String())
	add(r.NoRoom, "no_room = true")
	add(r.SameCrash > 0, "same_crash = %d", r.SameCrash)
	add(r.SameCrashFrom != "", "same_crash_from = %q", r.SameCrashFrom)
	add(r.Within > 0, "within = %q", within.String())
	add(true, "then = %q", r.Then)
	return strings.Join(parts, ", ")
}
