package config

import (
	"errors"
	"fmt"
	"path"
)

// Programs are programs of the site that the capture kernel runs. They are the paths of files on the machine that packs the
// image: static programs, or scripts whose interpreter is one.
type Programs struct {
	// Pre run after the modules were loaded, before the network comes up and the dump begins.
	Pre []string `toml:"pre"`
	// Post run after the dump or its failure, while the network is still up.
	Post []string `toml:"post"`
	// Limit is how long each of them may run. Then it is killed, with its process group. It is not 0.
	Limit Duration `toml:"limit"`
}

// maxPrograms bounds each of the lists.
const maxPrograms = 16

func (p *Programs) check() (string, error) {
	for _, list := range []struct {
		key   string
		files []string
	}{{"programs.pre", p.Pre}, {"programs.post", p.Post}} {
		if len(list.files) > maxPrograms {
			return list.key, fmt.Errorf("%d programs, and %d is the limit", len(list.files), maxPrograms)
		}
		for _, file := range list.files {
			if !isCleanPath(file) {
				return list.key, fmt.Errorf("%q is no absolute path: write [\"/usr/local/bin/NAME\"], without arguments", file)
			}
		}
	}
	if p.Limit == 0 {
		return "programs.limit", errors.New("0 s is too short for any program")
	}
	return "", nil
}

func isCleanPath(file string) bool { return path.IsAbs(file) && path.Clean(file) == file }

// ProgramPath is the path of a program inside the capture initramfs. It is not that of the machine, so that no program takes the
// place of another file of the image.
func ProgramPath(file string) string { return path.Join("/programs", file) }
