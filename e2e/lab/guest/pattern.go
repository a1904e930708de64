package main

import (
	"encoding/binary"
)

// words are the contents of text pages.
var words = []byte("panic dump page frame slab cache node zone list lock task stack read write open close wait poll\n")

// fillRandom writes incompressible bytes that depend on the seed only (xorshift64*, Vigna
// 2014). len(b) is a multiple of eight.
func fillRandom(b []byte, seed uint64) {
	x := seed*0x9e3779b97f4a7c15 + 1
	for len(b) >= 8 {
		x ^= x >> 12
		x ^= x << 25
		x ^= x >> 27
		binary.LittleEndian.PutUint64(b, x*0x2545f4914f6cdd1d)
		b = b[8:]
	}
}

// fillText writes words, and a number in every page, so that no two pages are equal.
func fillText(b []byte, seed uint64) {
	n := copy(b, words)
	for n < len(b) {
		n += copy(b[n:], b[:n])
	}
	for off := 0; off+16 <= len(b); off += pageLen {
		binary.LittleEndian.PutUint64(b[off:], seed)
		binary.LittleEndian.PutUint64(b[off+8:], uint64(off))
	}
}

// fillZero writes zeros, so that the pages exist and are zero.
func fillZero(b []byte, _ uint64) { clear(b) }
