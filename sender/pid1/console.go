package pid1

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/corehaul/corehaul/internal/printable"
)

// A Console writes lines for people. It is safe for concurrent use. It ignores errors, because there is no other place to
// report them.
type Console struct {
	mu  sync.Mutex
	out []io.Writer
}

// NewConsole returns a Console that writes to out.
func NewConsole(out ...io.Writer) *Console { return &Console{out: out} }

// Add adds a device to write to.
func (c *Console) Add(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, w)
}

// Printf writes one line that begins with the program's name. It replaces characters that could control a terminal,
// because parts of the line may come from a peer.
func (c *Console) Printf(format string, args ...any) {
	text := strings.Map(func(r rune) rune {
		if printable.Rune(r) {
			return r
		}
		return ' '
	}, fmt.Sprintf(format, args...))
	line := []byte("corehaul-send: " + strings.TrimRight(text, " ") + "\n")
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.out {
		_, _ = w.Write(line)
	}
}
