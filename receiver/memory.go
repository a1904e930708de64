package receiver

import (
	"runtime"

	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
)

// MinMemory is the least Config.Memory: room for one session and for the hello of others.
const MinMemory = 32 << 20

const (
	// writerBytes is about what a dumpdir.Writer holds for itself: the rank index of the
	// largest machine, the block cache, the chunk numbers.
	writerBytes = 3 << 20
	// frameBytes is the memory of one chunk as it arrives.
	frameBytes = protocol.ChunkBytes + 64<<10
	// minShare lets one session work, slowly: one frame being read, two in the window, one converter.
	minShare = writerBytes + 3*frameBytes + intake.ConverterBytes
	// maxShare is what one session can make use of: beyond it no line gets faster.
	maxShare = 128 << 20
	// maxWorkers bounds the goroutines that decode one session's chunks.
	maxWorkers = 4
)

// shares is how Config.Memory is split.
type shares struct {
	hello   int64 // for all sessions that are not admitted
	slots   int   // sessions admitted at a time
	workers int   // converters of each of them
	window  int64 // chunk payloads that each may have in memory
}

// split gives a quarter of the memory to those who say hello and shares the rest out.
func (c *Config) split() shares {
	memory := int64(min(c.Memory, 1<<50))
	s := shares{hello: memory / 4}
	rest := memory - s.hello
	s.slots = int(max(1, min(int64(c.MaxActive), rest/minShare)))
	share := min(rest/int64(s.slots), maxShare)
	extra := int((share - minShare) / (4 * intake.ConverterBytes)) // converters take at most a quarter of what is left
	s.workers = max(1, min(maxWorkers, runtime.GOMAXPROCS(0), 1+extra))
	s.window = share - writerBytes - frameBytes - int64(s.workers)*intake.ConverterBytes
	return s
}
