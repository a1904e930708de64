package symbolfile

import (
	"debug/dwarf"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
)

// Line is a place in the source.
type Line struct {
	Function string // whose code it is; empty if the file does not say
	File     string // path as the compiler saw it
	Line     int    // from 1 on; 0 if the compiler made the code without a line
}

// ErrNoLine says that the file has no line for an address: code from an assembler without debugging information, or none of this file.
var ErrNoLine = errors.New("no line of the source is known")

// Lines returns where the instruction comes from that has an address in the kernel's memory, as Place found it. The first is the line itself. If it
// was inlined into another function, the next is where that calls it, and so on; the last is in the function that has the address.
func (f *File) Lines(addr uint64) ([]Line, error) {
	if known, ok := f.known[addr]; ok {
		return known.lines, known.err
	}
	var lines []Line
	err := f.guard(func() (err error) {
		lines, err = f.lines(addr - f.place.slide)
		return err
	})
	if len(f.known) < maxKnown {
		f.known[addr] = answer{lines, err}
	}
	return lines, err
}

// maxKnown bounds the answers that are remembered. Stacks of many tasks wait in the same functions.
const maxKnown = 1 << 14

func (f *File) lines(pc uint64) ([]Line, error) {
	d, root, err := f.unitOf(pc)
	if err != nil {
		return nil, err
	}
	lr, err := f.lineReader(d, root)
	if err != nil {
		return nil, err
	}
	at, err := lineOf(lr, pc)
	if err != nil {
		return nil, err
	}
	w := walk{d: d, pc: pc, files: lr.Files()}
	if err := w.find(root); err != nil {
		return nil, err
	}
	lines := []Line{at}
	for _, call := range slices.Backward(w.chain) { // the function itself is the first of the chain
		lines[len(lines)-1].Function = call.function
		if call.inlined {
			lines = append(lines, call.from)
		}
	}
	return lines, nil
}

// unitOf returns the compile unit that has an address, and its root.
func (f *File) unitOf(pc uint64) (*dwarf.Data, *dwarf.Entry, error) {
	if f.elf.Type == elf.ET_REL {
		return f.unitOfModule(pc)
	}
	offset, ok, err := f.find(pc)
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return nil, nil, ErrNoLine
	}
	info, err := f.section(".debug_info")
	if err != nil {
		return nil, nil, err
	}
	b, err := unitAt(info, offset)
	if err != nil {
		return nil, nil, err
	}
	d, err := f.dwarfOf(b)
	if err != nil {
		return nil, nil, err
	}
	root, err := rootAt(d.Reader())
	if err != nil {
		return nil, nil, err
	}
	abbrevs, err := f.section(".debug_abbrev")
	if err != nil {
		return nil, nil, err
	}
	if _, elsewhere := scanAbbrevs(abbrevsOf(b, abbrevs)); elsewhere {
		return f.inWhole(info, offset, root)
	}
	return d, root, nil
}

// rootAt reads the root of a compile unit.
func rootAt(r *dwarf.Reader) (*dwarf.Entry, error) {
	root, err := r.Next()
	if err != nil {
		return nil, err
	}
	if root == nil || root.Tag != dwarf.TagCompileUnit {
		return nil, ErrNoLine
	}
	return root, nil
}

// lineReader reads the table of lines of a unit.
func (f *File) lineReader(d *dwarf.Data, root *dwarf.Entry) (*dwarf.LineReader, error) {
	table, err := f.section(".debug_line")
	if err != nil {
		return nil, err
	}
	if err := checkLineHeader(table, root); err != nil {
		return nil, err
	}
	lr, err := d.LineReader(root)
	if err == nil && lr == nil {
		err = ErrNoLine
	}
	return lr, err
}

// lineOf finds the row of an address: the last one before it. LineReader.SeekPC wants sequences in the order of addresses, which those of .text
// and .init.text are not.
func lineOf(lr *dwarf.LineReader, pc uint64) (Line, error) {
	var row, next dwarf.LineEntry
	for begun := false; ; begun = !next.EndSequence {
		err := lr.Next(&next)
		if errors.Is(err, io.EOF) {
			return Line{}, ErrNoLine
		}
		if err != nil {
			return Line{}, err
		}
		if begun && row.Address <= pc && pc < next.Address {
			l := Line{Line: row.Line}
			if row.File != nil {
				l.File = clean(row.File.Name)
			}
			return l, nil
		}
		row = next
	}
}

// clean shortens a path of the compiler.
func clean(name string) string {
	if name == "" {
		return ""
	}
	return path.Clean(name)
}

// call is a function of the chain that leads to an address.
type call struct {
	function string
	inlined  bool
	from     Line // where it was inlined
}

// walk goes down the entries of a unit to those that have an address.
type walk struct {
	d     *dwarf.Data
	pc    uint64
	files []*dwarf.LineFile
	chain []call // the function that has the address first, then what was inlined
}

// maxInlined bounds the functions that are inlined in one another. Those of kernels are fewer than 20.
const maxInlined = 256

// find fills the chain, which stays empty if no function has the address.
func (w *walk) find(root *dwarf.Entry) error {
	r := w.d.Reader()
	r.Seek(root.Offset)
	depth, inside := 0, 0 // inside is the depth below the last entry of the chain
	for {
		e, err := r.Next()
		if err != nil || e == nil {
			return err
		}
		if e.Tag == 0 {
			if depth--; depth <= 0 || len(w.chain) > 0 && depth < inside {
				return nil
			}
			continue
		}
		enter, err := w.enter(e)
		if err != nil {
			return err
		}
		if len(w.chain) > maxInlined {
			return fmt.Errorf("more than %d functions are inlined in one another", maxInlined)
		}
		switch {
		case !e.Children:
		case enter:
			if depth++; len(w.chain) > 0 {
				inside = depth
			}
		default:
			r.SkipChildren()
		}
	}
}

// enter takes an entry into the chain if it is a function that has the address. It reports whether its children may have it too.
func (w *walk) enter(e *dwarf.Entry) (bool, error) {
	switch e.Tag {
	case dwarf.TagCompileUnit, dwarf.TagNamespace, dwarf.TagModule:
		return len(w.chain) == 0, nil
	case dwarf.TagSubprogram, dwarf.TagInlinedSubroutine, dwarf.TagLexDwarfBlock:
	default:
		return false, nil
	}
	inlined := e.Tag == dwarf.TagInlinedSubroutine
	if (e.Tag == dwarf.TagSubprogram) != (len(w.chain) == 0) {
		return false, nil
	}
	has, err := w.has(e)
	if err != nil || !has || e.Tag == dwarf.TagLexDwarfBlock {
		return has, err
	}
	c := call{function: w.nameOf(e), inlined: inlined}
	if inlined {
		c.from = w.callOf(e)
	}
	w.chain = append(w.chain, c)
	return true, nil
}

// has reports whether the code of an entry has the address.
func (w *walk) has(e *dwarf.Entry) (bool, error) {
	ranges, err := w.d.Ranges(e)
	for _, r := range ranges {
		if r[0] <= w.pc && w.pc < r[1] {
			return true, nil
		}
	}
	return false, err
}

// maxOrigins bounds the entries that lead to the name of a function.
const maxOrigins = 8

// nameOf returns the name of a function: its own, or that of the function it is a copy of.
func (w *walk) nameOf(e *dwarf.Entry) string {
	r := w.d.Reader()
	for range maxOrigins {
		if name, ok := e.Val(dwarf.AttrName).(string); ok {
			return name
		}
		at, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset)
		if !ok {
			if at, ok = e.Val(dwarf.AttrSpecification).(dwarf.Offset); !ok {
				return ""
			}
		}
		r.Seek(at)
		next, err := r.Next()
		if err != nil || next == nil || next.Tag != dwarf.TagSubprogram {
			return ""
		}
		e = next
	}
	return ""
}

// callOf returns where a function was inlined.
func (w *walk) callOf(e *dwarf.Entry) Line {
	var l Line
	if n, ok := e.Val(dwarf.AttrCallFile).(int64); ok && n >= 0 && n < int64(len(w.files)) && w.files[n] != nil {
		l.File = clean(w.files[n].Name)
	}
	if n, ok := e.Val(dwarf.AttrCallLine).(int64); ok && n >= 0 && n < 1<<31 {
		l.Line = int(n)
	}
	return l
}
