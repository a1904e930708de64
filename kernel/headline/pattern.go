package headline

import (
	"regexp"
	"sync"
)

// pattern returns a function that returns the compiled expr. It compiles it when it is first called: logs of the kernel itself
// need few of the patterns, and all of them took 8 ms of the start of each program that imports this package.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
