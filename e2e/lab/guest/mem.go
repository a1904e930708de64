package main

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// zeros is for isZero: bytes.Equal uses vector instructions.
var zeros [zeroGrain]byte

// isZero reports whether b, of at most zeroGrain bytes, is all zero.
func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// alignedBuffer returns n bytes on a page boundary, which O_DIRECT needs.
func alignedBuffer(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}
