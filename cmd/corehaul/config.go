package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	path  string           // of the file
	lines map[string]int   // see keyLines
}

// loadServeFile reads the configuration file at path. An unknown key is an error. The error is of type problems.
func loadServeFile(path string) (*serveFile, error) {
	file, found := readServeFile(path)
	return file, found.err()
}

// readServeFile reads the file at path. It returns what can be used of a file with problems; nil if nothing can.
func readServeFile(path string) (*serveFile, problems) {
	text, err := plainfile.ReadText(path, maxConfigBytes)
	if err != nil {
		return nil, problems{{err: fmt.Errorf("configuration: %w", err), file: path}}
	}
	return parseServeFile(path, text)
}

func parseServeFile(path string, text []byte) (*serveFile, problems) {
	file, found := decodeServeFile(path, text)
	if file == nil {
		return nil, found
	}
	file.path, file.lines = path, keyLines(text)
	found = append(found, file.checkRules()...)
	file.old = append(file.old, decimalUnits(text)...)
	if err := file.Retention.renamed(&file.old); err != nil {
		found.add(file.problem("retention", fmt.Errorf("retention: %w", err)))
	}
	return file, found
}

// decodeServeFile decodes the text. The library ends at the first value of a wrong kind, so the text is decoded again without
// the line of that value. What is wrong with the syntax ends it.
func decodeServeFile(path string, text []byte) (*serveFile, problems) {
	var found problems
	for range maxProblems {
		file := new(serveFile)
		dec := toml.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		err := dec.Decode(file)
		var unknown *toml.StrictMissingError
		var bad *toml.DecodeError
		switch {
		case err == nil:
			return file, found
		case errors.As(err, &unknown):
			return file, append(found, unknownKeys(path, unknown)...)
		case errors.As(err, &bad):
			row, col := bad.Position()
			key := strings.Join(bad.Key(), ".")
			found.add(&problem{
				err:  fmt.Errorf("configuration %s, line %d, column %d: %s%s", path, row, col, keyText(bad), plaintoml.Text(bad)),
				file: path, line: row, key: key,
			})
			if text = withoutLine(text, row); key == "" || text == nil {
				return nil, found
			}
		default:
			found.add(&problem{err: fmt.Errorf("configuration %s: %w", path, err), file: path})
			return nil, found
		}
	}
	return nil, found
}

func unknownKeys(path string, err *toml.StrictMissingError) (found problems) {
	for i := range err.Errors {
		row, _ := err.Errors[i].Position()
		key := strings.Join(err.Errors[i].Key(), ".")
		found.add(&problem{err: fmt.Errorf("configuration %s, line %d: unknown key %q", path, row, key), file: path, line: row, key: key})
	}
	return found
}

// withoutLine returns the text with an empty line in place of one, from 1. It is nil if the line is no whole "key = value".
func withoutLine(text []byte, row int) []byte {
	lines := bytes.Split(text, []byte("\n"))
	if row < 1 || row > len(lines) || len(bytes.TrimSpace(lines[row-1])) == 0 || toml.Unmarshal(lines[row-1], new(map[string]any)) != nil {
		return nil
	}
	lines[row-1] = nil
	return bytes.Join(lines, []byte("\n"))
}

// keyText begins the text about a value of a known key.
func keyText(bad *toml.DecodeError) string {
	if len(bad.Key()) == 0 {
		return ""
	}
	return fmt.Sprintf("key %q: ", strings.Join(bad.Key(), "."))
}

// problem is something wrong with a key of the file.
func (c *serveFile) problem(key string, err error) *problem {
	line, ok := c.lines[key]
	where := c.path
	if ok {
		where = fmt.Sprintf("%s, line %d", c.path, line)
	}
	return &problem{err: fmt.Errorf("configuration %s: %w", where, err), file: c.path, line: line, key: key}
}

// values returns the values that the file has for flags, as texts, by the names of the flags.
func (c *serveFile) values() map[string]string {
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
		if list != nil {
			values[name] = listValue(list)
		}
	}
	maps.Copy(values, c.keepValues())
	return values
}

// apply sets the flags that the file has and that neither the command line nor the environment set. It skips keys for which the command
// has no flag. It returns the flags that rule over the file.
func (c *serveFile) apply(flags *pflag.FlagSet) (over []string, found problems) {
	values := c.values()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch {
		case flags.Lookup(name) == nil:
			continue
		case flags.Changed(name):
			over = append(over, name)
			continue
		}
		if err := flags.Set(name, values[name]); err != nil {
			key := keyOf(name)
			found.add(c.problem(key, fmt.Errorf("key %q: %w", key, cli.BadValue(err))))
		}
	}
	return over, found
}

// keyOf returns the key of a flag.
func keyOf(flag string) string { return strings.ReplaceAll(flag, "-", "_") }

// listValue returns a list as flags take it: a line of CSV, because a path may have a comma.
func listValue(list []string) string {
	var line strings.Builder
	w := csv.NewWriter(&line)
	_ = w.Write(list) // a Builder takes everything
	w.Flush()
	return strings.TrimSuffix(line.String(), "\n")
}
