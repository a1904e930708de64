package export

import (
	"sync"

	"github.com/corehaul/corehaul/mem"
)

// Steps of an export, for Options.Progress.
const (
	StepCheck = "check" // all pages are read, to know those that cannot be read
	StepPages = "write" // pages are read and written
	StepCopy  = "copy"  // a file is copied
)

// tellEvery is after how many bytes Options.Progress is called again.
const tellEvery = 1 << 20

// meter counts the bytes of one step after another. A nil meter counts nothing.
type meter struct {
	tell func(step string, done, total int64)

	mu          sync.Mutex
	step        string
	done, total int64
	told        int64
}

func newMeter(tell func(step string, done, total int64)) *meter {
	if tell == nil {
		return nil
	}
	return &meter{tell: tell}
}

// begin starts a step of so many bytes.
func (m *meter) begin(step string, total int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.step, m.done, m.told, m.total = step, 0, 0, total
	m.tell(step, 0, total)
}

func (m *meter) add(n int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done += int64(n); m.done-m.told >= tellEvery {
		m.told = m.done
		m.tell(m.step, m.done, m.total)
	}
}

// pageBytes is the number of bytes that the pages of src have which its file holds.
func (s Source) pageBytes() int64 { return int64(s.Has.Held) * int64(s.Info().PageSize) }

// ReadPage implements vmcore.Image.
func (s Source) ReadPage(p []byte, pfn mem.PFN) error {
	s.meter.add(len(p))
	return s.Image.ReadPage(p, pfn)
}
