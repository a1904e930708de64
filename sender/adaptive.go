package sender

import (
	"sync"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// adaptiveEncoding chooses the encoding of the next chunk by what holds up the pipe. The writer
// tells it how long it waited for the network and how long for an encoded chunk: when the
// network is what is waited for, a stronger code makes the dump faster, and when the
// encoders are, a lighter one does.
type adaptiveEncoding struct {
	mu      sync.Mutex
	ladder  []protocol.Encoding
	pos     int
	network time.Duration // waited for the network since the last decision
	encoder time.Duration // waited for an encoder
	chunks  int
}

// How adaptiveEncoding decides: after some chunks and some waiting, so that one
// slow write does not count, and with a gap between up and down, so that a balanced
// pipe stays as it is.
const (
	decideChunks = 16
	decideTime   = 100 * time.Millisecond
	upFactor     = 4
	downFactor   = 2
)

func newAdaptiveEncoding(ladder []protocol.Encoding) *adaptiveEncoding {
	return &adaptiveEncoding{ladder: ladder}
}

// encoding returns what the next chunk is to be encoded with.
func (a *adaptiveEncoding) encoding() protocol.Encoding {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ladder[a.pos]
}

// observe adds the times for which the writer waited at one chunk: for the network and for the encoders.
func (a *adaptiveEncoding) observe(network, encoder time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.network += network
	a.encoder += encoder
	a.chunks++
	if a.chunks < decideChunks || a.network+a.encoder < decideTime {
		return
	}
	switch {
	case a.network > upFactor*a.encoder && a.pos < len(a.ladder)-1:
		a.pos++
	case a.encoder > downFactor*a.network && a.pos > 0:
		a.pos--
	}
	a.network, a.encoder, a.chunks = 0, 0, 0
}
