package main

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// zeros is compared against; bytes.Equal runs on the vector unit.
var zeros [zeroGrain]byte

// isZero tells whether b, at most zeroGrain long, is all zero.
func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// alignedBuffer gives n bytes on a page boundary, as O_DIRECT wants them.
func alignedBuffer(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}
