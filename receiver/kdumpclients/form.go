package kdumpclients

import (
	"strings"

	"github.com/corehaul/corehaul/vmcore/flattened"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
	"github.com/corehaul/corehaul/vmcore/packed"
)

// magicLen is how many bytes sniff needs.
const magicLen = 16

// form is the format of a file: one of these, or that of package packed.
type form string

// The forms. Any other file is a small file, whatever its name.
const (
	formPlain form = "plain"
	formFlat  form = "flattened"
	formKdump form = "kdump-compressed"
	formELF   form = "elf"
	// formOtherELF is an ELF file that is no dump. SUSE also sends vmlinux (KDUMP_COPY_KERNEL).
	formOtherELF form = "other elf"
)

// magics has the magics of the forms that are not compressed as a whole.
var magics = []struct {
	magic string
	form  form
}{
	{flattened.Signature, formFlat},
	{kdumpfile.Signature, formKdump},
	{"DISKDUMP", formKdump},
	{"\x7fELF", formELF},
}

// sniff returns the form of a file by its first bytes.
func sniff(head []byte) form {
	for _, m := range magics {
		if strings.HasPrefix(string(head), m.magic) {
			return m.form
		}
	}
	if f := packed.FormOf(head); f != packed.Plain {
		return form(f)
	}
	return formPlain
}

// compressed reports whether f has another form inside.
func (f form) compressed() bool {
	switch packed.Form(f) {
	case packed.Bzip2, packed.Gzip, packed.LZ4, packed.XZ, packed.Zstd:
		return true
	}
	return false
}
