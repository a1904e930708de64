package main

import (
	"bytes"
	"fmt"
	"time"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/lazyregexp"
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

// checkRules converts the rules of a file. An error names the line where its rule begins.
func checkRules(path string, text []byte, list []ruleFile) (rules []admission.Rule, old oldKeys, err error) {
	if len(list) > maxRules {
		return nil, nil, fmt.Errorf("configuration %s: %d rules, more than %d", path, len(list), maxRules)
	}
	lines := ruleLines(text)
	for i := range list {
		rule, err := list[i].rule(fmt.Sprintf("rule %d", i+1), &old)
		if err != nil {
			where := path
			if i < len(lines) {
				where = fmt.Sprintf("%s, line %d", path, lines[i])
			}
			return nil, nil, fmt.Errorf("configuration %s: %s: %w", where, rule.Name, err)
		}
		rules = append(rules, rule)
	}
	return rules, old, nil
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

var ruleHeader = lazyregexp.New(`^\s*\[\[\s*["']?rule["']?\s*\]\]`)

// ruleLines returns the lines where rules begin. The TOML library knows lines of values only.
func ruleLines(text []byte) (lines []int) {
	for i, line := range bytes.Split(text, []byte("\n")) {
		if ruleHeader.Match(line) {
			lines = append(lines, i+1)
		}
	}
	return lines
}
