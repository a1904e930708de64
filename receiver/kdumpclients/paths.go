package kdumpclients

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/corehaul/corehaul/internal/printable"
)

// Limits of paths.
const (
	maxPath  = 1024 // bytes of a clean path
	maxName  = 255  // NAME_MAX
	maxDepth = 16
)

// cleanPath returns a client's path as a name in the tree: absolute, without empty parts or dots. A path that leads above
// the root ends at the root.
func cleanPath(p string) (string, error) {
	c := path.Clean("/" + p)
	if len(c) > maxPath || strings.Count(c, "/") > maxDepth {
		return "", fmt.Errorf("path of %d bytes: %w", len(p), fs.ErrInvalid)
	}
	for name := range strings.SplitSeq(c, "/") {
		if len(name) > maxName || !printable.String(name) {
			return "", fmt.Errorf("path %q: %w", c, fs.ErrInvalid)
		}
	}
	return c, nil
}

// parents returns the directories above p, the root first.
func parents(p string) []string {
	if p == "/" {
		return nil
	}
	return append(parents(path.Dir(p)), path.Dir(p))
}
