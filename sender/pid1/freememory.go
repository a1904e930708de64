package pid1

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/corehaul/corehaul/internal/bytesize"
)

// meminfoPath has the state of the memory (Documentation/filesystems/proc.rst, meminfo): lines "NAME: NUMBER kB", where kB
// is 1024 bytes.
const meminfoPath = "/proc/meminfo"

// sampleEvery is the shortest time between two looks at the memory while nothing else happens.
const sampleEvery = time.Second

// freeMemory notes the least memory that was available. It is safe for concurrent use.
type freeMemory struct {
	mu    sync.Mutex
	total uint64 // bytes
	least uint64 // bytes
	next  time.Time
}

// look reads the memory, at most once every sampleEvery unless now is set. Whoever comes while another looks does not wait.
func (m *freeMemory) look(read func(name string) ([]byte, error), now bool) {
	if !m.mu.TryLock() {
		return
	}
	defer m.mu.Unlock()
	if !now && time.Now().Before(m.next) {
		return
	}
	m.next = time.Now().Add(sampleEvery)
	text, err := read(meminfoPath)
	if err != nil {
		return // not mounted yet, or never
	}
	total, available, err := parseMeminfo(text)
	if err == nil && (m.total == 0 || available < m.least) {
		m.total, m.least = total, available
	}
}

// String says what was seen, or "" if nothing was.
func (m *freeMemory) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.total == 0 {
		return ""
	}
	return fmt.Sprintf("least free memory %s of %s", bytesize.Format(m.least), bytesize.Format(m.total))
}

// parseMeminfo returns MemTotal and MemAvailable in bytes. MemAvailable (since Linux 3.14, commit 34e431b0ae39) is what programs can get
// without swapping: free pages above the reserves, and caches that the kernel would give back.
func parseMeminfo(text []byte) (total, available uint64, err error) {
	if total, err = meminfoField(text, "MemTotal:"); err != nil {
		return 0, 0, err
	}
	available, err = meminfoField(text, "MemAvailable:")
	return total, available, err
}

func meminfoField(text []byte, name string) (uint64, error) {
	for line := range bytes.Lines(text) {
		if words := bytes.Fields(line); len(words) == 3 && string(words[0]) == name {
			kib, err := strconv.ParseUint(string(words[1]), 10, 54)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", meminfoPath, name)
}
