package lab

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed readeach.py
var readEachScript string

// PagesOf is what libkdumpfile saw of one dump.
type PagesOf struct {
	// Refused is why it does not read the file at all; then the rest is empty.
	Refused string `json:"refused"`
	// PageSize is in bytes.
	PageSize int `json:"page_size"`
	// Pages has the pages that the file promises, by page frame: the first 16
	// hexadecimal digits of the SHA-256 of their contents, or nil for one that
	// cannot be read.
	Pages map[uint64]*string `json:"pages"`
	// Cut is whether there are more: 1024 are read, and 40 that cannot be read.
	Cut bool `json:"cut"`
}

// ReadEachPage has libkdumpfile 0.5.1 read every page of many dumps, in one Python: ELF or kdump-compressed, not
// flattened. The dumps may be as broken as they like; one answer comes for each, in order.
func ReadEachPage(ctx context.Context, dumps []string) ([]PagesOf, error) {
	dir, err := os.MkdirTemp("", "corehaul-readeach-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	script := filepath.Join(dir, "readeach.py")
	if err := os.WriteFile(script, []byte(readEachScript), 0o600); err != nil {
		return nil, err
	}
	// Debian's own Python, not one that comes first in $PATH: it has the binding.
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", script)
	cmd.Stdin = strings.NewReader(strings.Join(dumps, "\n"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("lab: libkdumpfile: %w: %s", err, tail(stderr.String(), 5))
	}
	answers := make([]PagesOf, 0, len(dumps))
	for line := range bytes.Lines(out) {
		var p PagesOf
		if err := json.Unmarshal(line, &p); err != nil {
			return nil, fmt.Errorf("lab: libkdumpfile said %q: %w", line, err)
		}
		answers = append(answers, p)
	}
	if len(answers) != len(dumps) {
		return nil, fmt.Errorf("lab: libkdumpfile answered for %d of %d dumps", len(answers), len(dumps))
	}
	return answers, nil
}
