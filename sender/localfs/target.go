package localfs

import (
	"errors"
	"net/url"
	"path"
	"strings"
)

// Form is how a target in a local directory is written.
const Form = "file:///PATH"

// A Target is a directory for dumps.
type Target struct {
	// Dir is its absolute path.
	Dir string
}

// ParseURL reads a target of the Form. The errors do not name the target.
func ParseURL(u *url.URL) (Target, error) {
	switch {
	case u.Host != "" || u.User != nil || u.Opaque != "":
		return Target{}, errors.New("a path begins with the third slash, write " + Form)
	case u.Path == "":
		return Target{}, errors.New("the path is missing, write " + Form)
	case u.Fragment != "" || u.RawQuery != "" || strings.ContainsRune(u.Path, 0):
		return Target{}, errors.New("remove what follows the path, write " + Form)
	case path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") && u.Path != "/":
		return Target{}, errors.New("write the path without . and .. and double slashes: " + path.Clean(u.Path))
	}
	return Target{Dir: path.Clean(u.Path)}, nil
}
