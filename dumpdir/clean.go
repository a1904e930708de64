package dumpdir

import "github.com/corehaul/corehaul/internal/printable"

// Bounds of the manifest's strings, in bytes.
const (
	maxHost = 64
	maxText = 512
)

// clean makes a string that a crashed machine or a peer chose safe to print: valid
// UTF-8, no control or invisible characters, at most limit bytes.
// It is idempotent.
func clean(s string, limit int) string { return printable.Clean(s, limit) }
