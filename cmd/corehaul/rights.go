package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/corehaul/corehaul/cmd/internal/cli"
)

// denied says as whom to run the command if the error says that the caller has no right to a file: as the user whom the file, or
// the directory that should have it, belongs to. Root, whom rights do not stop, gets no such hint.
func denied(err error) error {
	if !errors.Is(err, fs.ErrPermission) || len(cli.Hints(err)) > 0 || os.Geteuid() == 0 {
		return err
	}
	dir, owner, ok := ownerOf(pathIn(err))
	if !ok {
		return cli.WithHint(err, "run it as root, or as the user whom the file belongs to")
	}
	if owner == "root" {
		return cli.WithHint(err, fmt.Sprintf("run it as root, whom %s belongs to: put sudo before it", dir))
	}
	return cli.WithHint(err, fmt.Sprintf("run it as %s, whom %s belongs to: put 'sudo -u %s' before it", owner, dir, owner))
}

// pathIn returns the file that an error names, empty if it names none.
func pathIn(err error) string {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return at.Path
	}
	if at, ok := errors.AsType[*os.LinkError](err); ok {
		return at.Old
	}
	return ""
}

// ownerOf returns the owner of the file at path, or else of the nearest directory above it that the caller can see.
func ownerOf(path string) (at, owner string, ok bool) {
	for path != "" {
		info, err := os.Stat(path)
		if err == nil {
			st, is := info.Sys().(*syscall.Stat_t)
			if !is {
				return "", "", false
			}
			return path, userName(st.Uid), true
		}
		up := filepath.Dir(path)
		if up == path {
			break
		}
		path = up
	}
	return "", "", false
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "#" + id // sudo takes it
}
