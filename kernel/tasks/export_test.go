package tasks

// SetMaxParts changes the limit of parts of counters.
func (r *Reader) SetMaxParts(n int) { r.memory.maxParts = n }
