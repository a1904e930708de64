package packed

import "io"

// NewXZGuard returns the check of an xz stream that is between file and decoder.
func NewXZGuard(r io.Reader, maxDict int64) io.Reader { return newXZGuard(r, maxDict) }
