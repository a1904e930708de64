package initrd

import (
	"fmt"
	"os"
	"path/filepath"
)

// TreeError says that a directory is no directory of kernel modules, because it has no modules.dep.
type TreeError struct {
	Dir string
	// Near lists directories below, above or beside it that have one.
	Near []string
	Err  error
}

// Error names the directory and what is wrong with it.
func (e *TreeError) Error() string {
	st, err := os.Stat(e.Dir)
	switch {
	case err != nil:
		return fmt.Sprintf("kernel modules: %v", err)
	case !st.IsDir():
		return fmt.Sprintf("kernel modules: %s is no directory", e.Dir)
	}
	return fmt.Sprintf("%s is no directory of kernel modules: it has no modules.dep", e.Dir)
}

// Hints says what to write instead.
func (e *TreeError) Hints() []string {
	hints := []string{"write /lib/modules/VERSION, with the VERSION of the kernel that kexec loads; 'depmod VERSION' makes modules.dep"}
	for _, dir := range e.Near {
		hints = append(hints, fmt.Sprintf("there is %s", dir))
	}
	return hints
}

// Unwrap returns the reason.
func (e *TreeError) Unwrap() error { return e.Err }

// maxNear bounds the directories in Near.
const maxNear = 5

// treesNear finds directories of modules near abs, which may be /lib/modules itself, a directory inside of
// /lib/modules/VERSION, another version, or the root of a system.
func treesNear(abs string) []string {
	var found []string
	for _, pattern := range []string{"*", "lib/modules/*", "usr/lib/modules/*", "..", "../..", "../*"} {
		indexes, _ := filepath.Glob(filepath.Join(abs, pattern, "modules.dep")) // a name with a [ in it finds nothing
		for _, index := range indexes {
			if len(found) < maxNear {
				found = append(found, filepath.Dir(index))
			}
		}
		if len(found) > 0 {
			break
		}
	}
	return found
}
