package tasks

// SetMaxParts changes the limit of parts of counters.
func (r *Reader) SetMaxParts(n int) { r.memory.maxParts = n }

// StackSize returns the bytes of a kernel stack.
func (r *Reader) StackSize() uint64 { return r.stackLen }
