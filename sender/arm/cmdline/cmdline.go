// Package cmdline makes the command line of a capture kernel from that of the running kernel.
//
// A command line is a list of words. Blanks separate them, except between double quotes, which may stand around a whole
// word or around the value behind its =. The word -- ends the kernel's own words. In names, - and _ are the same letter.
// All of this is as in the kernel's lib/cmdline.c (next_arg) and kernel/params.c (parameq).
//
// The package has no state. Any text is a command line, so nothing here fails.
package cmdline

import "strings"

// Remove and Add are the defaults of what Capture leaves out and adds.
var (
	// Remove has the names of words that harm a capture kernel, by their reason.
	Remove = []string{
		// They reserve memory that a capture kernel does not have.
		"crashkernel", "hugepages", "hugepagesz", "default_hugepagesz", "hugetlb_cma", "hugetlb_free_vmemmap", "cma", "log_buf_len",
		"memmap", "mem", "movablecore", "kernelcore", "swiotlb", "slub_debug", "slab_debug", "page_owner", "trace_buf_size",
		// They speak of CPUs that it does not start.
		"isolcpus", "nohz_full", "rcu_nocbs", "irqaffinity", "nr_cpus", "maxcpus", "possible_cpus",
		// They were for the boot loader and for another initramfs.
		"BOOT_IMAGE", "BOOTIF", "initrd", "init", "rdinit", "root", "rootflags", "rootfstype", "rootwait", "ro", "rw", "resume", "rd.*", "systemd.*",
		// They hide what the capture kernel says, or stop it.
		"quiet", "splash", "panic", "panic_on_warn", "kdb*", "kgdb*",
		// The kernel writes it itself.
		"elfcorehdr",
	}
	// Add has the words for a capture kernel: one CPU, because others may hang or hold locks; interrupts and devices in an
	// unknown state (irqpoll, reset_devices); a reboot when it panics itself; and no memory for what it does not use.
	Add = []string{
		"nr_cpus=1", "irqpoll", "reset_devices", "panic=10", "cgroup_disable=memory", "numa=off", "transparent_hugepage=never",
	}
)

// Words splits a command line. Quotes stay where they are. What comes behind the word -- is left out.
func Words(line string) []string {
	var words []string
	for {
		line = strings.TrimLeftFunc(line, isBlank)
		n := wordLen(line)
		if n == 0 || line[:n] == "--" {
			return words
		}
		words = append(words, line[:n])
		line = line[n:]
	}
}

// wordLen returns the length of the word at the beginning of a line, up to a blank outside quotes.
func wordLen(line string) int {
	quoted := false
	for i, r := range line {
		if r == '"' {
			quoted = !quoted
		}
		if !quoted && isBlank(r) {
			return i
		}
	}
	return len(line)
}

// isBlank is the kernel's isspace for ASCII.
func isBlank(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }

// Name returns the name of a word: what stands before its =, with _ for each -.
func Name(word string) string {
	name, _, _ := strings.Cut(strings.Trim(word, `"`), "=")
	return strings.ReplaceAll(name, "-", "_")
}

// Value returns the value of a word, without quotes, and whether it has one.
func Value(word string) (string, bool) {
	_, value, ok := strings.Cut(strings.Trim(word, `"`), "=")
	return strings.Trim(value, `"`), ok
}

// Values returns the values of all words of a name, in their order.
func Values(line, name string) []string {
	var list []string
	for _, w := range Words(line) {
		if v, ok := Value(w); ok && Name(w) == name {
			list = append(list, v)
		}
	}
	return list
}

// Capture returns the command line of the capture kernel: the words of the running kernel without those in remove, and then
// those of add. A name in remove that ends with * stands for all names that begin so. A word of add replaces the words of
// the running kernel with its name, except console, of which there may be many.
func Capture(running string, remove, add []string) string {
	gone := map[string]bool{}
	var prefixes []string
	for _, name := range remove {
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			prefixes = append(prefixes, Name(prefix))
			continue
		}
		gone[Name(name)] = true
	}
	for _, w := range add {
		gone[Name(w)] = gone[Name(w)] || Name(w) != "console"
	}
	var words []string
	for _, w := range Words(running) {
		if !gone[Name(w)] && !hasAnyPrefix(Name(w), prefixes) {
			words = append(words, w)
		}
	}
	return strings.Join(append(words, add...), " ")
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
