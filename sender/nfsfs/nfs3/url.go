package nfs3

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Form is how a target on an NFS server is written. port=PORT among the parameters is the same as :PORT.
const Form = "nfs://HOST[:PORT]/EXPORT/PATH[?mountport=PORT&uid=N&gid=N]"

// ParseURL reads a target of the Form. It returns the server and the directory. UID and GID are those of this process unless the
// target names others. The errors do not name the target.
func ParseURL(u *url.URL) (conf Config, dir string, err error) {
	switch {
	case u.Hostname() == "" || u.Path == "":
		return conf, "", errors.New("host or path is missing, write " + Form)
	case u.User != nil:
		return conf, "", errors.New("NFS has no login; name the user by numbers, " + Form)
	case slices.Contains(strings.Split(u.Path, "/"), ".."):
		return conf, "", errors.New("the path has \"..\"; write the directory that it leads to")
	case u.Fragment != "" || strings.ContainsRune(u.Path, 0):
		return conf, "", errors.New("remove what follows the path, write " + Form)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return conf, "", err
	}
	uid, gid := uint64(max(os.Getuid(), 0)), uint64(max(os.Getgid(), 0))
	var port, mountPort uint64
	if u.Port() != "" {
		query.Add("port", u.Port())
	}
	for key, values := range query {
		into, least, most := &port, uint64(1), uint64(1<<16-1)
		switch key {
		case "port":
		case "mountport":
			into = &mountPort
		case "uid":
			into, least, most = &uid, 0, 1<<32-2 // the last one means nobody in calls that set it
		case "gid":
			into, least, most = &gid, 0, 1<<32-2
		default:
			return conf, "", fmt.Errorf("unknown parameter %q, write %s", key, Form)
		}
		n, err := strconv.ParseUint(values[0], 10, 32)
		if err != nil || n < least || n > most || len(values) > 1 {
			return conf, "", fmt.Errorf("%s=%s: write it once, with a number from %d to %d", key, strings.Join(values, ","), least, most)
		}
		*into = n
	}
	return Config{
		Host: u.Hostname(), Port: uint16(port), MountPort: uint16(mountPort), UID: uint32(uid), GID: uint32(gid), //nolint:gosec // bounded above
	}, path.Clean("/" + u.Path), nil
}
