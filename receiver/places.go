package receiver

import "sync"

// Places counts what each host has of something, such as connections, up to a limit: no host may shut out the others. It is safe for
// concurrent use.
type Places struct {
	limit int

	mu sync.Mutex
	of map[string]int
}

// NewPlaces returns Places with so many for each host.
func NewPlaces(limit int) *Places { return &Places{limit: limit, of: map[string]int{}} }

// Take reports whether host may have one more, which it then has.
func (p *Places) Take(host string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of[host] >= p.limit {
		return false
	}
	p.of[host]++
	return true
}

// Give takes one back that host took.
func (p *Places) Give(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of[host]--; p.of[host] == 0 {
		delete(p.of, host)
	}
}
