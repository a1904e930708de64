package pid1

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/corehaul/corehaul/internal/printable"
)

// A Console takes lines for people. It is safe for concurrent use. Errors are
// ignored: there is nowhere left to tell them.
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

// Printf writes one line, with our name in front and nothing in it that could steer a
// terminal: parts of it may come from a peer.
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
