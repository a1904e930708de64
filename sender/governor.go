package sender

import (
	"sync"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// governor chooses the encoding of the next chunk by what holds up the pipe. The writer
// tells it how long it waited for the line and how long for an encoded chunk: when the
// line is what is waited for, a stronger code makes the dump faster, and when the
// encoders are, a lighter one does.
type governor struct {
	mu      sync.Mutex
	ladder  []protocol.Encoding
	pos     int
	line    time.Duration // waited for the line since the last decision
	encoder time.Duration // waited for an encoder
	chunks  int
}

// How the governor decides: after some chunks and some waiting, so that one
// slow write does not count, and with a gap between up and down, so that a balanced
// pipe stays as it is.
const (
	decideChunks = 16
	decideTime   = 100 * time.Millisecond
	upFactor     = 4
	downFactor   = 2
)

func newGovernor(ladder []protocol.Encoding) *governor { return &governor{ladder: ladder} }

// encoding returns what the next chunk is to be encoded with.
func (g *governor) encoding() protocol.Encoding {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ladder[g.pos]
}

// note takes what the writer waited for around one chunk.
func (g *governor) note(line, encoder time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.line += line
	g.encoder += encoder
	g.chunks++
	if g.chunks < decideChunks || g.line+g.encoder < decideTime {
		return
	}
	switch {
	case g.line > upFactor*g.encoder && g.pos < len(g.ladder)-1:
		g.pos++
	case g.encoder > downFactor*g.line && g.pos > 0:
		g.pos--
	}
	g.line, g.encoder, g.chunks = 0, 0, 0
}
