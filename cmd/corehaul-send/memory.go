package main

import (
	"bufio"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// Memory that a sender may take, in bytes. The promise is 64 MiB of resident memory
// on a machine of any size; the rest of it is the program itself, and what the Go
// runtime does not count.
const (
	heapLimit  = 36 << 20
	perWorker  = 3 << 20
	maxWorkers = 4
	// gcPercent makes the collector run earlier than by default: nearly all that the
	// sender uses is allocated once.
	gcPercent = 50
)

// tuneMemory bounds what the Go runtime takes, unless the environment has done so.
func tuneMemory(workers int) {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(heapLimit + int64(workers-1)*perWorker)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// defaultWorkers is one for each CPU up to a few: more do not make a line faster.
func defaultWorkers() int { return min(runtime.GOMAXPROCS(0), maxWorkers) }

// peakRSS returns the largest resident memory of this process so far, in bytes; 0 when
// the kernel does not tell.
func peakRSS() uint64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if rest, ok := strings.CutPrefix(sc.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 54)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
