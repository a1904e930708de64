package localfs

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/corehaul/corehaul/sender/disk"
)

// Form is how a target in a local directory is written.
const Form = "file:///PATH[?fs=UUID=...|LABEL=...|/dev/NAME]"

// A Target is a directory for dumps.
type Target struct {
	// Dir is its absolute path, on the mounted file systems or on FS.
	Dir string
	// FS is the file system that a capture kernel mounts. A running system has it mounted, and its targets name none.
	FS disk.Spec
}

// ParseURL reads a target of the Form. The errors do not name the target.
func ParseURL(u *url.URL) (Target, error) {
	switch {
	case u.Host != "" || u.User != nil || u.Opaque != "":
		return Target{}, errors.New("a path begins with the third slash, write " + Form)
	case u.Path == "":
		return Target{}, errors.New("the path is missing, write " + Form)
	case u.Fragment != "" || strings.ContainsRune(u.Path, 0):
		return Target{}, errors.New("remove what follows the path, write " + Form)
	case path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") && u.Path != "/":
		return Target{}, errors.New("write the path without . and .. and double slashes: " + path.Clean(u.Path))
	}
	fs, err := parseQuery(u.RawQuery)
	if err != nil {
		return Target{}, err
	}
	return Target{Dir: path.Clean(u.Path), FS: fs}, nil
}

// parseQuery reads fs=SPEC. A plus sign is one: labels may have it.
func parseQuery(query string) (disk.Spec, error) {
	if query == "" {
		return disk.Spec{}, nil
	}
	value, ok := strings.CutPrefix(query, "fs=")
	if !ok || strings.Contains(value, "&") {
		return disk.Spec{}, fmt.Errorf("unknown parameter %q, write %s", query, Form)
	}
	name, err := url.PathUnescape(value)
	if err != nil {
		return disk.Spec{}, err
	}
	return disk.ParseSpec(name)
}
