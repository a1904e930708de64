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

// PagesOf has the pages that libkdumpfile read of one dump.
type PagesOf struct {
	// Refused is why libkdumpfile refuses the file. Then the rest is empty.
	Refused string `json:"refused"`
	// PageSize is in bytes.
	PageSize int `json:"page_size"`
	// Pages has the pages of the file by page frame number: the first 16 hexadecimal
	// digits of the SHA-256 of the contents, or nil for a page that cannot be read.
	Pages map[uint64]*string `json:"pages"`
	// Cut says that there are more. At most 1024 pages are read, and at most 40 that
	// cannot be read.
	Cut bool `json:"cut"`
}

// ReadEachPage reads every page of many dumps with libkdumpfile 0.5.1, in one Python: ELF or kdump-compressed, not
// flattened. Dumps may be damaged in any way. There is one answer for each, in order.
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
	// Only Debian's own Python has the binding, and $PATH may name another one first.
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
