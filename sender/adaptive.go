package sender

import (
	"sync"
	"time"

	"github.com/corehaul/corehaul/protocol"
)

// adaptiveEncoding chooses the encoding of the next chunk. The writer reports how long it waited for the network and for
// encoded chunks. If the network is the bottleneck, stronger compression makes the dump faster. If the encoders are,
// lighter compression does.
type adaptiveEncoding struct {
	mu      sync.Mutex
	ladder  []protocol.Encoding
	pos     int
	network time.Duration // wait for the network since the last decision
	encoder time.Duration // wait for encoders since then
	chunks  int           // observed since then
}

// adaptiveEncoding decides after decideChunks chunks and decideTime of waiting, so that one slow write does not count.
// The two factors leave a gap, so that a balanced pipeline keeps its encoding.
const (
	decideChunks = 16
	decideTime   = 100 * time.Millisecond
	upFactor     = 4
	downFactor   = 2
)

func newAdaptiveEncoding(ladder []protocol.Encoding) *adaptiveEncoding {
	return &adaptiveEncoding{ladder: ladder}
}

// encoding returns the encoding for the next chunk.
func (a *adaptiveEncoding) encoding() protocol.Encoding {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ladder[a.pos]
}

// observe adds how long the writer waited for the network and for the encoders at one chunk.
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
