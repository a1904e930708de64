package receiver

import (
	"runtime"

	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
)

// MinMemory is the least Config.Memory: enough for one session and for the hello of others.
const MinMemory = 32 << 20

const (
	// writerBytes is about the memory of a dumpdir.Writer: the rank index of the largest
	// machine, the block cache, the chunk numbers.
	writerBytes = 3 << 20
	// frameBytes is the memory of one chunk as it arrives.
	frameBytes = protocol.ChunkBytes + 64<<10
	// minShare is enough for a slow session: one frame being read, two in the window, one converter.
	minShare = writerBytes + 3*frameBytes + intake.ConverterBytes
	// maxShare is the most that one session can use. No line gets faster with more.
	maxShare = 128 << 20
	// maxWorkers bounds the goroutines that decode one session's chunks.
	maxWorkers = 4
)

// shares are the parts of Config.Memory.
type shares struct {
	hello   int64 // for all sessions that are not admitted
	slots   int   // sessions admitted at a time
	workers int   // converters of each of them
	window  int64 // bytes of chunk payloads that each may have in memory
}

// split gives a quarter of the memory to sessions that are not admitted, and divides the rest among slots.
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
