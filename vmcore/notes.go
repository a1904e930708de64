package vmcore

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/vmcore/vmcoreinfo"
)

// Note names and types (include/uapi/linux/elf.h, include/linux/vmcore_info.h).
const (
	noteCore       = "CORE"
	noteVMCOREINFO = "VMCOREINFO"
	noteERASEINFO  = "ERASEINFO" // of makedumpfile (elf_info.h)
	ntPrstatus     = 1
)

const (
	noteHeaderLen = 12 // namesz, descsz, type: 3 * u32
	noteAlign     = 4  // of name and desc; ELF cores of Linux use 4 in 64-bit files too
	maxNotes      = 1 << 17
)

// Note is one ELF note.
type Note struct {
	Name string // without the trailing NUL
	Type uint32
	Desc []byte // shares memory with the notes
	Off  int    // of the descriptor, in bytes from the start of the notes
}

// Notes yields the ELF notes in b, the contents of PT_NOTE segments. It skips empty notes (all zero: kexec reserves
// space for CPUs that do not exist). If a note does not fit, an error that matches ErrCorrupt comes last.
func Notes(b []byte, order binary.ByteOrder) iter.Seq2[Note, error] {
	return func(yield func(Note, error) bool) {
		off := 0
		for n := 0; len(b)-off >= noteHeaderLen; n++ {
			note, next, err := noteAt(b, off, order)
			if err == nil && n >= maxNotes {
				err = Corruptf("ELF notes", int64(off), "more than %d notes", maxNotes)
			}
			if err != nil {
				yield(Note{}, err)
				return
			}
			off = next
			if note.Name == "" && note.Type == 0 && len(note.Desc) == 0 {
				continue
			}
			if !yield(note, nil) {
				return
			}
		}
	}
}

// noteAt decodes the note at off and returns the offset of the next one. b has at least its header.
func noteAt(b []byte, off int, order binary.ByteOrder) (Note, int, error) {
	namesz := uint64(order.Uint32(b[off:]))
	descsz := uint64(order.Uint32(b[off+4:]))
	name := uint64(off) + noteHeaderLen //nolint:gosec // an index is not negative
	desc := name + alignUp(namesz)
	end := desc + descsz
	if end > uint64(len(b)) {
		return Note{}, 0, Corruptf("ELF note", int64(off), "name of %d and descriptor of %d bytes do not fit in %d bytes of notes", namesz, descsz, len(b))
	}
	next := min(desc+alignUp(descsz), uint64(len(b)))
	return Note{
		Name: cString(b[name : name+namesz]),
		Type: order.Uint32(b[off+8:]),
		Desc: b[desc:end:end],
		Off:  int(desc), //nolint:gosec // at most len(b)
	}, int(next), nil //nolint:gosec // at most len(b)
}

func alignUp(n uint64) uint64 { return (n + noteAlign - 1) &^ (noteAlign - 1) }

// cString returns b up to its first NUL.
func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// Offsets in struct elf_prstatus of 64-bit architectures (include/linux/elfcore.h): pr_pid follows pr_info,
// pr_cursig, pr_sigpend and pr_sighold. pr_reg follows four more pids and four timevals. pr_fpvalid, padded to 8
// bytes, follows pr_reg.
const (
	prstatusPID  = 32
	prstatusReg  = 112
	prstatusTail = 8
)

// AddNotes sets i.Notes to b, and VMCOREINFO, CPUs and Eraseinfo from it. It also sets Machine if that is EM_NONE and
// the notes say it. i.ByteOrder must be set. Invalid notes and erased data become warnings. b is kept if it has at
// most MaxNotes bytes.
func (i *Info) AddNotes(b []byte) {
	if all := b; len(all) > MaxNotes {
		read := func(off int64, n int) ([]byte, error) { return all[off:][:n], nil }
		b, _ = ReadNotes(read, i.ByteOrder, []Segment{{Filesz: uint64(len(all))}}, i.Warnf) // read never fails
	}
	i.Notes = b
	i.VMCOREINFO = &vmcoreinfo.Info{}
	found, prstatus := false, 0
	for n, err := range Notes(b, i.ByteOrder) {
		switch {
		case err != nil:
			i.Warnf("%v; the notes from there on are not used", err)
		case n.Name == noteCore && n.Type == ntPrstatus:
			i.addPrstatus(n)
			prstatus = max(prstatus, len(n.Desc))
		case n.Name == noteVMCOREINFO && !found:
			found = i.addVMCOREINFO(n.Desc)
		case n.Name == noteVMCOREINFO:
			i.Warnf("a second VMCOREINFO note is not used")
		case n.Name == noteERASEINFO:
			i.Eraseinfo = append(i.Eraseinfo, n.Desc...)
		}
	}
	if i.Machine == elf.EM_NONE {
		i.Machine = i.guessMachine(prstatus)
	}
	if len(i.Eraseinfo) > 0 {
		i.Warnf("data was erased when the dump was made (makedumpfile --config or --eppic): %s", i.erasedInShort())
	}
}

// Erased returns the lines of Eraseinfo.
func (i *Info) Erased() []string {
	var lines []string
	for line := range strings.SplitSeq(strings.Trim(string(i.Eraseinfo), "\x00\n"), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// erasedInShort summarises the erased data in one line for people.
func (i *Info) erasedInShort() string {
	const most, longest = 3, 64
	lines := i.Erased()
	var parts []string
	for _, line := range lines[:min(len(lines), most)] {
		parts = append(parts, strconv.QuoteToASCII(line[:min(len(line), longest)]))
	}
	if more := len(lines) - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, ", ")
}

func (i *Info) addPrstatus(n Note) {
	if len(n.Desc) < prstatusReg+prstatusTail {
		i.Warnf("NT_PRSTATUS note of CPU %d has only %d bytes", len(i.CPUs), len(n.Desc))
		i.CPUs = append(i.CPUs, CPU{})
		return
	}
	pid := int32(i.ByteOrder.Uint32(n.Desc[prstatusPID:])) //nolint:gosec // a pid_t as stored
	end := len(n.Desc) - prstatusTail
	i.CPUs = append(i.CPUs, CPU{PID: pid, Regs: n.Desc[prstatusReg:end:end]})
}

func (i *Info) addVMCOREINFO(desc []byte) bool {
	v, err := vmcoreinfo.Parse(desc)
	if err != nil {
		i.Warnf("%v", err)
		return false
	}
	i.VMCOREINFO = v
	i.Warnings = append(i.Warnings, v.Warnings()...)
	return true
}

// Warnf adds a warning. Beyond a limit it adds only one that says that there are more.
func (i *Info) Warnf(format string, args ...any) {
	const limit = 32
	switch {
	case len(i.Warnings) < limit:
		i.Warnings = append(i.Warnings, fmt.Sprintf(format, args...))
	case len(i.Warnings) == limit:
		i.Warnings = append(i.Warnings, "more warnings not listed")
	}
}

// FindVMCOREINFO returns the descriptor of the first VMCOREINFO note in b and its
// offset there, or nil.
func FindVMCOREINFO(b []byte, order binary.ByteOrder) (desc []byte, off int) {
	return findNote(b, order, noteVMCOREINFO)
}

// FindERASEINFO returns the descriptor of the first ERASEINFO note in b and its offset, or nil: makedumpfile's list
// of erased data, as text.
func FindERASEINFO(b []byte, order binary.ByteOrder) (desc []byte, off int) {
	return findNote(b, order, noteERASEINFO)
}

func findNote(b []byte, order binary.ByteOrder, name string) (desc []byte, off int) {
	for n, err := range Notes(b, order) {
		if err == nil && n.Name == name {
			return n.Desc, n.Off
		}
	}
	return nil, 0
}

// AppendVMCOREINFO appends a VMCOREINFO note with that text to notes.
func AppendVMCOREINFO(notes []byte, order binary.AppendByteOrder, text []byte) []byte {
	return appendNote(notes, order, noteVMCOREINFO, text)
}

// AppendERASEINFO appends an ERASEINFO note with that text to notes, as makedumpfile -E does.
func AppendERASEINFO(notes []byte, order binary.AppendByteOrder, text []byte) []byte {
	return appendNote(notes, order, noteERASEINFO, text)
}

// appendNote appends a note of type 0. desc is at most 1 GiB.
func appendNote(b []byte, o binary.AppendByteOrder, name string, desc []byte) []byte {
	b = o.AppendUint32(b, uint32(len(name)+1)) //nolint:gosec // a name of this package
	b = o.AppendUint32(b, uint32(len(desc)))   //nolint:gosec // bounded by the caller
	b = o.AppendUint32(b, 0)
	for _, part := range [][]byte{append([]byte(name), 0), desc} {
		n := uint64(len(part))
		b = append(append(b, part...), make([]byte, alignUp(n)-n)...)
	}
	return b
}

// Lackf records what the file lacks: it is incomplete. The line is also a warning.
func (i *Info) Lackf(format string, args ...any) {
	i.Incomplete = true
	i.Lacks = append(i.Lacks, fmt.Sprintf(format, args...))
	i.Warnf(format, args...)
}
