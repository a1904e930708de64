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

// Memory limits of a sender, in bytes. The promise is 64 MiB of resident memory on a machine of any size. The program
// itself and memory that the Go runtime does not count need the rest.
const (
	heapLimit  = 36 << 20
	perWorker  = 3 << 20
	maxWorkers = 4
)

// tuneMemory limits the memory of the Go runtime, unless the environment sets limits.
func tuneMemory(workers int) {
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(heapLimit + int64(workers-1)*perWorker)
	}
}

// defaultWorkers is one for each CPU, up to maxWorkers: more do not make a connection faster.
func defaultWorkers() int { return min(runtime.GOMAXPROCS(0), maxWorkers) }

// peakRSS returns the largest resident memory of this process so far, in bytes, or 0 if the kernel does not say.
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
