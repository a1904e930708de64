package signature

import (
	"cmp"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
	"github.com/corehaul/corehaul/kernel/oops"
)

// culprits chooses the functions of a signature from a stack without the code that reports, innermost first. The culprit is the first. It
// returns none if the place of the class is chance, or the stack names none.
func culprits(c class, stack []Place) []Place {
	if c.placeless() {
		return nil
	}
	all := plain(stack)
	list := blamable(c, all)
	if len(list) == 0 {
		return all[:min(1, len(all))] // the log of kernel/oops blames a helper too where there is nothing else
	}
	switch c {
	case stackCorruption:
		return list[:1] // it overwrote where the function came from
	case stackOverflow:
		if again := recursive(list, 3); len(again) > 0 {
			return again
		}
		return outermost(list)
	case stall:
		return outermost(list)
	case hungTask:
		return waiting(all, list)
	}
	return withCallers(list)
}

// withCallers returns the culprit and its callers up to a function that dispatches.
func withCallers(list []Place) []Place {
	list = once(list)
	return list[:min(dispatcher(list, 1), 1+maxCallers)]
}

// dispatcher returns the first of a list from i on that dispatches, or the end of the list.
func dispatcher(list []Place, i int) int {
	for i < len(list) && !oops.Dispatches(list[i].Function) {
		i++
	}
	return i
}

// outermost returns the function that was dispatched, and the one that it called. What is further in depends on when the code was interrupted.
func outermost(list []Place) []Place {
	list = once(list)
	list = slices.Clone(list[:max(1, dispatcher(list, 0))])
	slices.Reverse(list)
	return list[:min(2, len(list))]
}

// recursive returns the functions that a stack has so many times or more, by name: those of a recursion. Which one is the last is chance.
func recursive(list []Place, times int) (again []Place) {
	count := map[Place]int{}
	for _, p := range list {
		if count[p]++; count[p] == times {
			again = append(again, p)
		}
	}
	slices.SortFunc(again, func(a, b Place) int {
		return cmp.Or(cmp.Compare(a.Function, b.Function), cmp.Compare(a.Module, b.Module))
	})
	return again[:min(len(again), 1+maxCallers)]
}

// waiting returns who waits, and its callers. Where many wait for one cause, it is the wait alone.
func waiting(all, list []Place) []Place {
	for _, p := range all {
		if name := oops.CommonWait(p.Function); name != "" {
			return []Place{{Function: name}}
		}
	}
	who := slices.DeleteFunc(slices.Clone(list), func(p Place) bool { return oops.IsWait(p.Function) })
	if len(who) == 0 {
		who = list
	}
	return withCallers(who)
}

// plain returns a stack without what differs between builds: suffixes of names and code without a name.
func plain(stack []Place) (list []Place) {
	for _, p := range stack {
		p.Function, p.Module = word(programTag.ReplaceAllString(oops.PlainName(p.Function), "bpf_prog_")), word(p.Module)
		if p.Function != "" && !strings.HasPrefix(p.Module, "__builtin__") {
			list = append(list, p)
		}
	}
	return list
}

var (
	// programTag is the hash of a BPF program in its name (kernel/bpf/core.c, bpf_get_prog_name). The program may have been built again.
	programTag = lazyregexp.New(`^bpf_prog_[0-9a-f]{16}_?`)
	// checks are functions that check for their callers: mm/usercopy.c, net/core/skbuff.c, lib/debugobjects.c, fs/proc/generic.c,
	// drivers/usb/core/message.c.
	checks = lazyregexp.New(`^(?:usercopy_|__check_)|^skb_(?:put|push|pull|over|under)|^_*debug_(?:print|check|object)|^proc_(?:register|create|mkdir)|^usb_(?:start_wait_urb|bulk_msg|interrupt_msg)$`)
)

// word cuts a name.
func word(s string) string { return s[:min(len(s), maxName)] }

// blamable leaves out helpers. What a driver calls like panic() is none below panic().
func blamable(c class, stack []Place) (list []Place) {
	for _, p := range stack {
		own := c == panicked && p.Module != "" && strings.Contains(p.Function, "panic")
		if own || !oops.IsHelper(p.Function) && (c != bug || !checks.MatchString(p.Function)) {
			list = append(list, p)
		}
	}
	return list
}

// once leaves out a function that follows itself: it called itself, or was entered under two names.
func once(list []Place) []Place { return slices.Compact(slices.Clone(list)) }
