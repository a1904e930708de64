package signature

import (
	"regexp"
	"strings"

	"github.com/corehaul/corehaul/kernel/oops"
)

// culprits chooses the functions of a signature from a stack, innermost first: the culprit, then its callers up to a function that
// dispatches. It is empty if the place is chance or the stack names none.
func culprits(c class, stack []Place) []Place {
	if c.placeless() {
		return nil
	}
	all := plain(stack)
	list := blamable(all)
	if len(list) == 0 {
		return all[:min(1, len(all))]
	}
	n := 1
	for n < min(len(list), 1+maxCallers) && !oops.Dispatches(list[n].Function) {
		n++
	}
	return list[:n]
}

// plain returns a stack without what differs between builds: suffixes of names, code without a name, and a function that calls itself.
func plain(stack []Place) (list []Place) {
	for _, p := range stack {
		p.Function, p.Module = word(programTag.ReplaceAllString(oops.PlainName(p.Function), "bpf_prog_")), word(p.Module)
		if p.Function == "" || strings.HasPrefix(p.Module, "__builtin__") || len(list) > 0 && list[len(list)-1] == p {
			continue
		}
		list = append(list, p)
	}
	return list
}

// programTag is the hash of a BPF program in its name (kernel/bpf/core.c, bpf_get_prog_name). The program may have been built again.
var programTag = regexp.MustCompile(`^bpf_prog_[0-9a-f]{16}_?`)

// word cuts a name.
func word(s string) string { return s[:min(len(s), maxName)] }

// blamable leaves out helpers.
func blamable(stack []Place) (list []Place) {
	for _, p := range stack {
		if !oops.IsHelper(p.Function) && (len(list) == 0 || list[len(list)-1] != p) {
			list = append(list, p)
		}
	}
	return list
}
