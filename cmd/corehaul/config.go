package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/internal/plaintoml"
	"github.com/corehaul/corehaul/receiver/admission"
)

// maxConfigBytes bounds a configuration file; a real one has a few hundred bytes.
const maxConfigBytes = 1 << 20

// serveFile is the configuration file of "serve". Its keys are the names of the flags with underscores. The values
// are the same texts as on the command line. A key that the file does not have is nil.
type serveFile struct {
	Data           *string       `toml:"data"`
	Socket         *string       `toml:"socket"`
	TLS            []string      `toml:"tls"`
	CA             *string       `toml:"ca"`
	SSH            []string      `toml:"ssh"`
	AuthorizedKeys *string       `toml:"authorized_keys"`
	LocalOnly      *bool         `toml:"local_only"`
	Watch          []string      `toml:"watch"`
	Memory         *string       `toml:"memory"`
	MaxActive      *int          `toml:"max_active"`
	MaxHost        *int          `toml:"max_host_sessions"`
	MaxHostBytes   *string       `toml:"max_host_bytes"`
	MaxHostDumps   *int          `toml:"max_host_dumps"`
	MaxConnections *int          `toml:"max_connections"`
	Reserve        *string       `toml:"reserve"`
	ResumeGrace    *string       `toml:"resume_grace"`
	IdleTimeout    *string       `toml:"idle_timeout"`
	StallTimeout   *string       `toml:"stall_timeout"`
	StockIdle      *string       `toml:"stock_idle_timeout"`
	CommitInterval *string       `toml:"commit_interval"`
	CommitBytes    *string       `toml:"commit_bytes"`
	Compressor     *string       `toml:"compressor"`
	ReportJobs     *int          `toml:"report_jobs"`
	ReportRenewals *int          `toml:"report_renewals"`
	ScrubRate      *string       `toml:"scrub_rate"`
	ScrubEvery     *string       `toml:"scrub_every"`
	Retention      retentionFile `toml:"retention"`
	LogFormat      *string       `toml:"log_format"`
	LogLevel       *string       `toml:"log_level"`

	Rules []ruleFile       `toml:"rule"`
	rules []admission.Rule // Rules, checked
	old   oldKeys          // that the file has
}

// loadServeFile reads the configuration file at path. An unknown key is an error.
func loadServeFile(path string) (*serveFile, error) {
	text, err := plainfile.ReadText(path, maxConfigBytes)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return parseServeFile(path, text)
}

func parseServeFile(path string, text []byte) (*serveFile, error) {
	var file serveFile
	dec := toml.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&file)
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		row, _ := unknown.Errors[0].Position()
		key := strings.Join(unknown.Errors[0].Key(), ".")
		return nil, fmt.Errorf("configuration %s, line %d: unknown key %q", path, row, key)
	case errors.As(err, &bad):
		row, col := bad.Position()
		return nil, fmt.Errorf("configuration %s, line %d, column %d: %s%s", path, row, col, keyText(bad), plaintoml.Text(bad))
	case err != nil:
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	if file.rules, file.old, err = checkRules(path, text, file.Rules); err != nil {
		return nil, err
	}
	file.old = append(file.old, decimalUnits(text)...)
	if err := file.Retention.renamed(&file.old); err != nil {
		return nil, fmt.Errorf("configuration %s: retention: %w", path, err)
	}
	return &file, nil
}

// keyText begins the text about a value of a known key.
func keyText(bad *toml.DecodeError) string {
	if len(bad.Key()) == 0 {
		return ""
	}
	return fmt.Sprintf("key %q: ", strings.Join(bad.Key(), "."))
}

// apply sets the flags that the file has and that neither the command line nor the environment set. It skips keys for which the command
// has no flag.
func (c *serveFile) apply(path string, flags *pflag.FlagSet) error {
	values := map[string]string{}
	for name, s := range map[string]*string{
		"data": c.Data, "ca": c.CA, "memory": c.Memory, "reserve": c.Reserve, "resume-grace": c.ResumeGrace,
		"idle-timeout": c.IdleTimeout, "stall-timeout": c.StallTimeout, "stock-idle-timeout": c.StockIdle, "max-host-bytes": c.MaxHostBytes, "socket": c.Socket,
		"authorized-keys": c.AuthorizedKeys,
		"commit-interval": c.CommitInterval, "commit-bytes": c.CommitBytes,
		"compressor": c.Compressor, "log-format": c.LogFormat, "log-level": c.LogLevel,
	} {
		if s != nil {
			values[name] = *s
		}
	}
	for name, n := range map[string]*int{"max-active": c.MaxActive, "max-host-sessions": c.MaxHost, "max-host-dumps": c.MaxHostDumps, "max-connections": c.MaxConnections} {
		if n != nil {
			values[name] = fmt.Sprint(*n)
		}
	}
	if c.LocalOnly != nil {
		values["local-only"] = fmt.Sprint(*c.LocalOnly)
	}
	for name, list := range map[string][]string{"tls": c.TLS, "ssh": c.SSH, "watch": c.Watch} {
		if list == nil {
			continue
		}
		line, err := listValue(list)
		if err != nil {
			return fmt.Errorf("configuration %s: key %q: %w", path, name, err)
		}
		values[name] = line
	}
	maps.Copy(values, c.keepValues())
	for name, value := range values {
		if flags.Lookup(name) == nil || flags.Changed(name) {
			continue
		}
		if err := flags.Set(name, value); err != nil {
			return fmt.Errorf("configuration %s: key %q: %w", path, strings.ReplaceAll(name, "-", "_"), cli.BadValue(err))
		}
	}
	return nil
}

// listValue returns a list as flags take it: a line of CSV, because a path may have a comma.
func listValue(list []string) (string, error) {
	var line strings.Builder
	w := csv.NewWriter(&line)
	if err := w.Write(list); err != nil {
		return "", err
	}
	w.Flush()
	return strings.TrimSuffix(line.String(), "\n"), w.Error()
}
