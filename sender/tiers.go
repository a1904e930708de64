package sender

import "github.com/corehaul/corehaul/kernel/pages"

// Tiers of a plan in send order, so that a dump that ends early is useful. The first few hundred pages are enough to read
// the log from memory. crash needs the kernel image and what the kernel allocated. It can do without the struct pages
// (the memory map). On a big idle machine, these are most of a dump at level 31.
const (
	tierLog    uint8 = iota // what leads to the kernel log, and the log: page tables, ring, texts
	tierKernel              // kernel image and everything that the kernel allocated
	tierMemmap              // the struct pages
	tierUser                // page cache and user pages, if the level keeps them
	tierFree                // free pages, if the level keeps them
	numTiers

	essentialTiers = tierKernel + 1
)

var tierNames = [numTiers]string{"log", "kernel", "memmap", "user", "free"}

func tierOf(c pages.Class) uint8 {
	switch c {
	case pages.Memmap:
		return tierMemmap
	case pages.Cache, pages.CachePrivate, pages.User:
		return tierUser
	case pages.Free:
		return tierFree
	}
	return tierKernel
}
