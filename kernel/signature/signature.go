// Package signature makes the signature of a crash: a short name that two crashes share if they are the same one, whatever the host,
// the boot, the CPU, the addresses and the build of the kernel.
//
// A signature is made of words: a class of crashes, and functions with their modules, the culprit first, then those that called it.
// ID is a hash of all words, Coarse one of the class and the culprit. So two callers of one broken function have two IDs and one Coarse.
//
// The log and the memory are two witnesses of a crash. OfLog makes the signature from what the kernel printed, OfStacks from the stacks
// in memory. Both reduce what they have to the same list of functions, and to the same few classes: memory cannot tell a NULL pointer
// from a wild one, and one bug may show as either. Signatures of a class whose place is chance, such as oom, have no functions.
//
// The rules are those of error trackers for the kernel. Satyr (ABRT) hashes the functions of an oops's trusted frames without offsets, syzkaller
// names kind and the first function that is no helper (kernel/oops has its list), Sentry uses the stack first and the message only where
// there is none, and gives its algorithm a version. So does this package: Version is in every hash.
//
// The input is hostile. Time and memory are linear in it. Functions are safe for concurrent use.
package signature

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Version is the version of the algorithm. It is part of what is hashed, so signatures of different versions never meet. Whoever raises
// it also raises triage.Version, so that stored reports are made again.
const Version = 1

const (
	maxCallers = 3   // functions of a signature behind the culprit
	maxName    = 120 // bytes of the name of a function or module, as kernel/kallsyms.c has room for 127 or 511
)

// Signature names a crash.
type Signature struct {
	ID     string `json:"id"`     // of the crash and who called the culprit: 16 hexadecimal digits
	Coarse string `json:"coarse"` // of class and culprit only: the same
	// Frames are the words that ID is made of: the class, then functions as in "ext4_writepages [ext4]". A Vague one has the title of the
	// crash in their place, which is the panic message without its numbers where nothing else is known.
	Frames []string `json:"frames"`
	// Vague says that the log names no place in the code, so that the signature is made of the panic message. Different crashes may
	// have the same message.
	Vague bool `json:"vague,omitempty"`
}

// Class is the first word: what kind of crash it is, as far as memory and log can both tell.
func (s *Signature) Class() string { return s.Frames[0] }

// Place is a function in a stack.
type Place struct {
	Function string // with suffixes of the compiler; "" for code without a name
	Module   string // "" for the kernel image
}

// String returns the word of a place.
func (p Place) String() string {
	if p.Module == "" {
		return p.Function
	}
	return p.Function + " [" + p.Module + "]"
}

// newSignature returns the signature of a class and functions, the culprit first.
func newSignature(c class, places []Place) *Signature {
	words := []string{string(c)}
	for _, p := range places {
		words = append(words, p.String())
	}
	return &Signature{ID: hash("fine", words), Coarse: hash("coarse", words[:min(2, len(words))]), Frames: words}
}

// hash returns the first 16 digits of the SHA-256 of a text with a line for each word. No word has a line feed.
func hash(what string, words []string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "corehaul signature %d %s\n%s\n", Version, what, strings.Join(words, "\n")))
	return hex.EncodeToString(sum[:8])
}
