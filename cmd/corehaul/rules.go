package main

import (
	"bytes"
	"fmt"
	"regexp"
	"time"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/receiver/admission"
)

// maxRules bounds the rules of a configuration: each dump is compared with all of them.
const maxRules = 256

// ruleFile is one [[rule]] of the configuration file.
type ruleFile struct {
	Host          string           `toml:"host"`
	FreeBelow     *cli.BytesValue  `toml:"free_below"`
	NoRoom        bool             `toml:"no_room"`
	SamePanic     int              `toml:"same_panic"`
	SamePanicFrom admission.Scope  `toml:"same_panic_from"`
	Within        ageValue         `toml:"within"`
	Then          admission.Action `toml:"then"`
}

// checkRules converts the rules of a file. An error names the line where its rule begins.
func checkRules(path string, text []byte, list []ruleFile) ([]admission.Rule, error) {
	if len(list) > maxRules {
		return nil, fmt.Errorf("configuration %s: %d rules, more than %d", path, len(list), maxRules)
	}
	lines := ruleLines(text)
	var rules []admission.Rule
	for i, f := range list {
		rule := admission.Rule{
			Name: fmt.Sprintf("rule %d", i+1), Host: f.Host, NoRoom: f.NoRoom, Then: f.Then,
			SamePanic: f.SamePanic, SamePanicFrom: f.SamePanicFrom, Within: time.Duration(f.Within),
		}
		if f.FreeBelow != nil {
			rule.FreeBelow = uint64(*f.FreeBelow)
		}
		if err := rule.Check(); err != nil {
			where := path
			if i < len(lines) {
				where = fmt.Sprintf("%s, line %d", path, lines[i])
			}
			return nil, fmt.Errorf("configuration %s: %s: %w", where, rule.Name, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

var ruleHeader = regexp.MustCompile(`^\s*\[\[\s*["']?rule["']?\s*\]\]`)

// ruleLines returns the lines where rules begin. The TOML library knows lines of values only.
func ruleLines(text []byte) (lines []int) {
	for i, line := range bytes.Split(text, []byte("\n")) {
		if ruleHeader.Match(line) {
			lines = append(lines, i+1)
		}
	}
	return lines
}
