package pages

import (
	"encoding/binary"
	"math/bits"

	"github.com/corehaul/corehaul/mem"
)

// maxCompoundOrder is the highest valid order. The largest compound
// page is a hugetlb page: of 1 GiB with pages of 4 KiB, of 1 GiB with pages of 16 KiB on arm64, and
// of 16 GiB with pages of 64 KiB on arm64 (CONT_PMD_SIZE, arch/arm64/mm/hugetlbpage.c), which is
// the same order as the first.
const maxCompoundOrder = 18

const pageMappingAnon = 1 // PAGE_MAPPING_ANON, bit 0 of page->mapping

// facts are the fields of one struct page that the tests need.
type facts struct {
	flags, private uint64
	word           uint32 // _mapcount or page type
	order          uint64 // of the compound page that begins here, else 0
	tail           bool   // of a compound page
	slab, anon     bool
	hugetlb        bool
}

// read reads the facts of frame pfn from its struct page p. next is the struct page of the next frame, or nil.
func (l *layout) read(f *facts, p, next []byte, pfn mem.PFN) {
	*f = facts{flags: binary.LittleEndian.Uint64(p[l.flags:])}
	if l.compoundHead >= 0 && p[l.compoundHead]&1 != 0 {
		f.tail = true
		return
	}
	if l.mapcount >= 0 {
		f.word = binary.LittleEndian.Uint32(p[l.mapcount:])
	}
	if l.private >= 0 {
		f.private = binary.LittleEndian.Uint64(p[l.private:])
	}
	f.slab = f.flags&l.slab != 0 || l.slabType.is(f.word)
	if l.mapping >= 0 {
		f.anon = p[l.mapping]&pageMappingAnon != 0 && !f.slab
	}
	if f.flags&l.head != 0 && next != nil {
		l.readCompoundPage(f, next, pfn)
	}
}

// readCompoundPage takes order and kind of the compound page that begins at pfn
// from its second struct page.
func (l *layout) readCompoundPage(f *facts, next []byte, pfn mem.PFN) {
	switch {
	case l.orderInFlags:
		flags := binary.LittleEndian.Uint64(next[l.flags:])
		f.order = flags & 0xff
		f.hugetlb = l.hugetlbType.is(f.word) || flags&l.hugetlbFlag != 0
	default:
		if l.order >= 0 {
			f.order = uint64(next[l.order])
		}
		f.hugetlb = l.dtor >= 0 && int64(next[l.dtor]) == l.hugetlbDtor
	}
	// A compound page is aligned to its size; any other order is no order.
	if f.order > maxCompoundOrder || bits.TrailingZeros64(uint64(pfn)) < int(f.order) {
		f.order = 0
	}
}

// judge applies the tests of level to a frame, in makedumpfile's order. It returns the class and the number of frames
// that it covers, or Kernel and 1 if no test excludes the frame.
func (l *layout) judge(f *facts, level DumpLevel) (Class, uint64) {
	if f.tail { // its head page decides
		return Kernel, 1
	}
	if level&LevelFree != 0 {
		switch {
		case l.canTellFree() && f.word == l.buddy.value && !f.slab:
			if f.private >= l.orders {
				return Kernel, 1 // makedumpfile ends here, too
			}
			return Free, 1 << f.private
		case l.mapcount >= 0 && l.unaccepted.is(f.word):
			return Free, 1 << (l.orders - 1)
		}
	}
	if c := l.judgeUse(f, level); c != Kernel {
		return c, 1 << f.order
	}
	switch {
	case f.flags&l.hwpoison != 0:
		return HWPoison, 1 << f.order
	case l.mapcount >= 0 && l.offline.is(f.word) && !f.slab:
		return Offline, 1 << f.order
	}
	return Kernel, 1
}

// judgeUse runs the tests for page cache and user memory.
func (l *layout) judgeUse(f *facts, level DumpLevel) Class {
	if !l.canTellUse || l.mapping < 0 {
		return Kernel
	}
	isCache := f.flags&l.lru != 0 || f.flags&l.swapBacked != 0 && f.flags&l.swapCache != 0
	private := f.flags&l.privateFlag != 0 || l.privateFlag == 0
	switch {
	case level&LevelCache != 0 && isCache && !private && !f.anon:
		return Cache
	case level&LevelCachePrivate != 0 && isCache && !f.anon:
		if private {
			return CachePrivate
		}
		return Cache
	case level&LevelUser != 0 && (f.anon || f.hugetlb):
		return User
	}
	return Kernel
}

// looksAt reports whether makedumpfile reads struct pages at all at a level. At levels 0 and 1 it does so only for
// kernels that can mark poisoned pages. So dumps of other kernels keep offline pages.
func (l *layout) looksAt(level DumpLevel) bool {
	return level&(LevelCache|LevelCachePrivate|LevelUser) != 0 || l.hwpoison != 0 ||
		level&LevelFree != 0 && l.canTellFree()
}

// canTellFree reports whether VMCOREINFO has the keys to recognise free blocks.
func (l *layout) canTellFree() bool { return l.private >= 0 && l.mapcount >= 0 && l.buddy.known }

// decide returns the class of a frame, the number of frames that it covers, and whether level excludes them. The
// class is that of level 31, also if a lower level keeps the frame.
func (l *layout) decide(f *facts, level DumpLevel) (class Class, count uint64, excluded bool) {
	class, count = l.judge(f, MaxLevel)
	if !l.looksAt(level) {
		return class, count, false
	}
	if class.ExcludedAt(level) {
		// Nothing before this test matched with all tests on, so nothing does
		// with fewer.
		return class, count, true
	}
	if level != MaxLevel { // with fewer tests on, a later one can match
		if other, n := l.judge(f, level); other != Kernel {
			return other, n, true
		}
	}
	return class, count, false
}
