package pages

import (
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/kernel"
)

// Limits of VMCOREINFO's values. A struct page has 56 or 64 bytes, up to 96 with debugging options. An order is below
// 11 by default and at most 31 with CONFIG_ARCH_FORCE_MAX_ORDER, because a block is never larger than a section.
const (
	minStructPage = 32
	maxStructPage = 512
	defaultOrders = 11
	maxOrders     = 32
	flagBits      = 64
)

// layout describes struct page: sizes and offsets in bytes, flags as masks (0: unknown, matches nothing), page types
// as values of the word of _mapcount.
type layout struct {
	size uint64

	flags, mapping, mapcount, private, compoundHead int // offsets, -1 if unknown

	lru, privateFlag, swapCache, swapBacked, slab, hwpoison, head uint64 // flag masks

	buddy, offline, slabType, unaccepted, hugetlbType pageType

	// order and dtor are offsets in the second struct page of a compound page, -1 if unknown. orderInFlags says that
	// the order is the low byte of that page's flags (6.6 and later).
	order, dtor  int
	orderInFlags bool
	hugetlbFlag  uint64 // mask in the second page's flags, kernels 6.6 to 6.8
	hugetlbDtor  int64  // dtor of a hugetlb page, before 6.6; -1 if unknown

	orders     uint64 // orders of free blocks are below this
	canTellUse bool   // slab and tail pages can be recognised, so the other tests are valid
}

// pageType is a value of the word that holds _mapcount or a page type.
type pageType struct {
	value uint32
	known bool
}

func (t pageType) is(word uint32) bool { return t.known && word == t.value }

// layoutReader fills a layout from VMCOREINFO and warns of missing keys.
type layoutReader struct {
	info kernel.VMCoreInfo
	size uint64 // of struct page
	warn func(format string, args ...any)
}

// offset returns the offset of a member of width bytes in struct page, or -1 if VMCOREINFO lacks it or it does not
// fit.
func (r layoutReader) offset(key string, width uint64) int {
	v, ok := r.info.Offset(key)
	if !ok {
		return -1
	}
	if v > r.size || r.size-v < width {
		r.warn("OFFSET(%s)=%d is outside struct page of %d bytes: not used", key, v, r.size)
		return -1
	}
	return int(v) //nolint:gosec // at most maxStructPage
}

// flag returns the mask of a page flag, or 0 if VMCOREINFO lacks it.
func (r layoutReader) flag(key string) uint64 {
	n, ok := r.info.Number(key)
	if !ok {
		return 0
	}
	if n < 0 || n >= flagBits {
		r.warn("NUMBER(%s)=%d is not a bit of page flags: not used", key, n)
		return 0
	}
	return 1 << uint(n)
}

// pageType returns a value of the page type word. VMCOREINFO prints it as a
// signed number: -129 up to 6.10, the type in the high byte since (4ffca5a96678).
func (r layoutReader) pageType(key string) pageType {
	n, ok := r.info.Number(key)
	return pageType{value: uint32(n & 0xffffffff), known: ok}
}

// readLayout returns the layout of struct page. It calls warn for each missing or invalid key, with the consequence.
// It reports false if struct pages cannot be read at all.
func readLayout(info kernel.VMCoreInfo, warn func(format string, args ...any)) (layout, bool) {
	size, ok := info.Size("page")
	if !ok {
		warn("VMCOREINFO has no SIZE(page): no page can be excluded")
		return layout{}, false
	}
	if size < minStructPage || size > maxStructPage || size%8 != 0 {
		warn("SIZE(page)=%d makes no sense: no page can be excluded", size)
		return layout{}, false
	}
	r := layoutReader{info: info, size: size, warn: warn}
	l := layout{size: size}
	l.readMembers(r)
	if l.flags < 0 {
		warn("VMCOREINFO has no OFFSET(page.flags): no page can be excluded")
		return layout{}, false
	}
	l.readFlags(r)
	l.readTypes(r)
	l.readCompound(r)
	l.reportMissing(r)
	return l, true
}

func (l *layout) readMembers(r layoutReader) {
	l.flags = r.offset("page.flags", 8)
	l.mapping = r.offset("page.mapping", 8)
	l.mapcount = r.offset("page._mapcount", 4)
	l.private = r.offset("page.private", 8)
	l.compoundHead = r.offset("page.compound_head", 8)
	if l.compoundHead < 0 {
		l.compoundHead = r.offset("page.compound_info", 8) // 7.1 and later
	}
}

func (l *layout) readFlags(r layoutReader) {
	l.lru = r.flag("PG_lru")
	l.privateFlag = r.flag("PG_private")
	l.swapCache = r.flag("PG_swapcache")
	l.swapBacked = r.flag("PG_swapbacked")
	l.slab = r.flag("PG_slab")
	l.hwpoison = r.flag("PG_hwpoison")
	if n, ok := r.info.Number("PG_head_mask"); ok {
		l.head = uint64(n) //nolint:gosec // a bit mask
	}
}

func (l *layout) readTypes(r layoutReader) {
	l.buddy = r.pageType("PAGE_BUDDY_MAPCOUNT_VALUE")
	l.offline = r.pageType("PAGE_OFFLINE_MAPCOUNT_VALUE")
	l.slabType = r.pageType("PAGE_SLAB_MAPCOUNT_VALUE")
	l.unaccepted = r.pageType("PAGE_UNACCEPTED_MAPCOUNT_VALUE")
	l.hugetlbType = r.pageType("PAGE_HUGETLB_MAPCOUNT_VALUE")
	l.orders = defaultOrders
	if n, ok := r.info.Length("zone.free_area"); ok && n > 0 && n <= maxOrders {
		l.orders = n
	} else {
		r.warn("VMCOREINFO has no usable LENGTH(zone.free_area): free blocks of order %d and up are kept", defaultOrders)
		l.unaccepted.known = false // such a block has the highest order, whatever that is
	}
}

// readCompound finds the order of a compound page and the mark of a hugetlb page, both in the second struct page. The
// newest kernels come first.
func (l *layout) readCompound(r layoutReader) {
	l.order, l.dtor, l.hugetlbDtor = -1, -1, -1
	if l.hugetlbType.known { // d99e3140a4d3 (6.9)
		l.orderInFlags = true
		return
	}
	if l.hugetlbFlag = r.flag("PG_hugetlb"); l.hugetlbFlag != 0 { // 6.6
		l.orderInFlags = true
		return
	}
	// Until 6.5 both were members, of one byte since 4.16. For older kernels the widths are unknown.
	if !releaseAtLeast(r.info, 4, 16) {
		return
	}
	// 6.3 to 6.5 give the offset from the start of the first struct page.
	l.order = r.folioOffset("folio._folio_order", "page.compound_order")
	l.dtor = r.folioOffset("folio._folio_dtor", "page.compound_dtor")
	if n, ok := r.info.Number("HUGETLB_PAGE_DTOR"); ok {
		l.hugetlbDtor = n
	}
}

func (r layoutReader) folioOffset(folioKey, pageKey string) int {
	v, ok := r.info.Offset(folioKey)
	if !ok {
		return r.offset(pageKey, 1)
	}
	if v < r.size || v-r.size >= r.size {
		r.warn("OFFSET(%s)=%d is outside the second struct page: not used", folioKey, v)
		return -1
	}
	return int(v - r.size) //nolint:gosec // below maxStructPage
}

// reportMissing warns of the tests that are off because their keys are missing.
func (l *layout) reportMissing(r layoutReader) {
	missing := func(absent bool, key, consequence string) {
		if absent {
			r.warn("VMCOREINFO has no usable %s: %s", key, consequence)
		}
	}
	missing(l.mapcount < 0, "OFFSET(page._mapcount)", "free and offline pages are kept")
	missing(l.private < 0, "OFFSET(page.private)", "free pages are kept")
	missing(!l.buddy.known, "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", "free pages are kept")
	missing(!l.offline.known, "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)", "offline pages cannot be recognised and are kept")
	// Without NUMBER(PG_hwpoison) nothing is amiss: the kernel has no CONFIG_MEMORY_FAILURE, and marks no page.

	// Slab and tail pages use the fields for other things, which the tests may take for any flag or type. If these
	// pages cannot be recognised, only free blocks are excluded, because their type is unambiguous.
	noSlab := l.slab == 0 && (!l.slabType.known || l.mapcount < 0)
	missing(noSlab, "NUMBER(PG_slab) or NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)", "only free pages are excluded")
	missing(l.compoundHead < 0, "OFFSET(page.compound_head)", "only free pages are excluded")
	l.canTellUse = !noSlab && l.compoundHead >= 0

	missing(l.mapping < 0, "OFFSET(page.mapping)", "cache and user pages are kept")
	missing(l.lru == 0, "NUMBER(PG_lru)", "page cache is kept")
	missing(l.privateFlag == 0, "NUMBER(PG_private)", "all page cache counts as private")
	missing(l.swapCache == 0, "NUMBER(PG_swapcache)", "the swap cache is kept")
	missing(l.swapBacked == 0, "NUMBER(PG_swapbacked)", "the swap cache is kept")
	missing(l.head == 0, "NUMBER(PG_head_mask)", "of compound pages only the first page is excluded")
	noOrder := !l.orderInFlags && l.order < 0
	missing(noOrder, "OFFSET(page.compound_order)", "of compound pages only the first page is excluded")
	noHugetlb := !l.hugetlbType.known && l.hugetlbFlag == 0 && (l.dtor < 0 || l.hugetlbDtor < 0)
	missing(noHugetlb, "NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE), NUMBER(PG_hugetlb) or NUMBER(HUGETLB_PAGE_DTOR)", "hugetlb pages are kept")
}

// releaseAtLeast reports whether the kernel's release is at least major.minor. It replaces the width of
// compound_order, which VMCOREINFO lacks: two bytes before 4.16.
func releaseAtLeast(info kernel.VMCoreInfo, major, minor int) bool {
	release, _ := info.String("OSRELEASE")
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, errA := strconv.Atoi(parts[0])
	b, errB := strconv.Atoi(leadingDigits(parts[1]))
	return errA == nil && errB == nil && (a > major || a == major && b >= minor)
}

func leadingDigits(s string) string {
	if i := strings.IndexFunc(s, func(c rune) bool { return c < '0' || c > '9' }); i >= 0 {
		return s[:i]
	}
	return s
}
