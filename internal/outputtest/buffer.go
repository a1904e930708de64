// Package outputtest keeps what programs and servers write, for tests that read it meanwhile.
package outputtest

import (
	"bytes"
	"slices"
	"strings"
	"sync"
)

// Buffer keeps what is written to it. Its zero value is empty. It is safe for concurrent use.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// Bytes returns a copy of all that was written.
func (b *Buffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.b.Bytes())
}

// String returns all that was written.
func (b *Buffer) String() string { return string(b.Bytes()) }

// Lines returns the lines that have all of some texts.
func (b *Buffer) Lines(parts ...string) (lines []string) {
	for line := range strings.Lines(b.String()) {
		lacks := func(part string) bool { return !strings.Contains(line, part) }
		if !slices.ContainsFunc(parts, lacks) {
			lines = append(lines, line)
		}
	}
	return lines
}
