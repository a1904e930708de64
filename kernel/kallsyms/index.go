package kallsyms

import (
	"hash/maphash"
	"iter"
	"slices"
)

// index finds symbols by their names. A key has 32 bits of the name's hash above the symbol's number, and the keys are
// sorted. The seed is random, so no dump can choose names with equal hashes.
type index struct {
	seed maphash.Seed
	keys []uint64
}

func newIndex(n *names) index {
	x := index{seed: maphash.MakeSeed(), keys: make([]uint64, 0, len(n.starts))}
	buf := make([]byte, 0, maxNameLen)
	for i := range n.starts {
		if buf = n.expand(buf[:0], i); len(buf) > 0 {
			x.keys = append(x.keys, x.hash(buf[1:])|uint64(i))
		}
	}
	slices.Sort(x.keys)
	return x
}

func (x *index) hash(name []byte) uint64 { return maphash.Bytes(x.seed, name) &^ (1<<32 - 1) }

// find returns the numbers of the symbols with a name, ascending.
func (x *index) find(n *names, name string) iter.Seq[int] {
	return func(yield func(int) bool) {
		hash := x.hash([]byte(name))
		buf := make([]byte, 0, maxNameLen)
		for at, _ := slices.BinarySearch(x.keys, hash); at < len(x.keys) && x.keys[at]&^(1<<32-1) == hash; at++ {
			i := int(x.keys[at] & (1<<32 - 1))
			buf = n.expand(buf[:0], i)
			if string(buf[1:]) == name && !yield(i) {
				return
			}
		}
	}
}
