package dumpdir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// verifier is one run of Verify.
type verifier struct {
	d    *Dump
	jr   *journal
	as   State // state for which vmcore was written
	ctx  context.Context
	opts VerifyOptions
	rep  *Report

	vm     File
	name   string // of the vmcore file
	size   int64
	pos    int64 // everything before was read
	told   int64 // pos of the last progress report
	sum    hash.Hash
	buf    []byte
	layout kdumpfile.Layout
	bitmap *rankedBitmap // the expected 2nd bitmap
}

// Verify reads every byte of the dump in constant memory and compares it with what the journal requires. Damage is in
// the report. The error says that the verification could not be done, or is that of ctx. Of an arriving dump, Verify
// checks the committed part.
func (d *Dump) Verify(ctx context.Context, opts VerifyOptions) (*Report, error) {
	if opts.MaxFindings == 0 {
		opts.MaxFindings = defaultFindings
	}
	v := &verifier{
		d: d, jr: d.jr, ctx: ctx, opts: opts, sum: sha256.New(), buf: make([]byte, 64<<10),
		rep: &Report{State: d.m.State, Progress: d.Progress(), Findings: []Finding{}, Compared: ComparedJournal},
	}
	if opts.Limit != nil {
		v.d = d.limited(ctx, opts.Limit)
		v.jr = v.d.jr
	}
	v.structure()
	err := v.run()
	if v.isLoss(err) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return v.rep, nil
}

// run checks everything except what structure reports.
func (v *verifier) run() error {
	if v.jr != nil {
		v.as = v.jr.state()
		if err := v.log(); err != nil {
			return err
		}
	}
	if err := v.keptFiles(); err != nil {
		return err
	}
	if v.d.lost {
		return v.withoutSeal()
	}
	if v.jr.plan != nil {
		if err := v.vmcore(); err != nil {
			return err
		}
	}
	if v.jr.seal != nil {
		return v.sums()
	}
	return nil
}

// isLoss turns an error of the medium into a finding: what lies behind the place was not checked. The same applies to
// a journal that has changed since it was opened.
func (v *verifier) isLoss(err error) bool {
	if isDamage(err) {
		return v.damage(err) == nil
	}
	lost := isMediumError(err)
	if lost {
		f := Finding{File: VMCoreName, Offset: v.pos, Where: "disk", Text: err.Error()}
		if pe, ok := errors.AsType[*fs.PathError](err); ok && path.Base(pe.Path) != v.name {
			f.File, f.Offset = path.Base(pe.Path), -1
		}
		v.find(f)
	}
	return lost
}

// isMediumError reports whether the medium does not return the bytes.
func isMediumError(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EBADMSG) || errors.Is(err, syscall.EUCLEAN)
}

const defaultFindings = 1000

func (v *verifier) find(f Finding) {
	v.rep.add(f, v.opts.MaxFindings)
}

// damage turns a *DamageError into a finding. It returns other errors.
func (v *verifier) damage(err error) error {
	d, ok := errors.AsType[*DamageError](err)
	if !ok {
		return err
	}
	where := "journal"
	if d.File == ManifestName {
		where = "manifest"
	}
	v.find(Finding{File: d.File, Offset: d.Offset, Where: where, Text: d.Text})
	return nil
}

// structure reports the damage that Open found in manifest and journal.
func (v *verifier) structure() {
	if errors.Is(v.d.damage, fs.ErrNotExist) {
		v.find(Finding{File: ManifestName, Offset: -1, Where: "manifest", Text: "missing"})
	} else if len(v.brokenSpans()) == 0 || v.d.lost {
		_ = v.damage(v.d.damage) // Open keeps no other errors
	}
	for _, s := range v.brokenSpans() {
		if v.jr.seal == nil && s.end == v.jr.size && !v.d.lost {
			v.rep.Warnings = append(v.rep.Warnings, fmt.Sprintf("%s: %d bytes at the end are not committed", JournalName, s.end-s.off))
			continue
		}
		v.find(Finding{File: JournalName, Offset: s.off, Length: s.end - s.off, Where: "journal", Text: "no intact record"})
	}
}

func (v *verifier) brokenSpans() []span {
	if v.jr == nil {
		return nil
	}
	return v.jr.broken
}

func (v *verifier) log() error {
	if v.jr.log == nil {
		return nil
	}
	size, sum, err := hashFile(v.d.fs, path.Join(v.d.dir, LogName), v.ctx.Err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.find(Finding{File: LogName, Offset: -1, Where: "log", Text: "missing"})
	case err != nil:
		return err
	case size != v.jr.log.size:
		v.find(Finding{File: LogName, Offset: min(size, v.jr.log.size), Where: "log", Text: fmt.Sprintf("%d bytes long, not %d", size, v.jr.log.size)})
	case sum != v.jr.log.sum:
		v.find(Finding{File: LogName, Offset: -1, Where: "log", Text: "SHA-256 is not the one that the journal has"})
	}
	return nil
}

// vmcore checks the file from start to end.
func (v *verifier) vmcore() error {
	if ok, err := v.openVMCore(); err != nil || !ok {
		return err
	}
	err := v.readVMCore()
	if errors.Is(err, errShort) {
		v.find(Finding{File: v.name, Offset: v.size, Length: v.jr.dataEnd - v.size, Where: "file", Text: fmt.Sprintf("ends at %d, has to be %d bytes", v.size, v.jr.dataEnd)})
		err = nil
	}
	return errors.Join(err, v.vm.Close())
}

func (v *verifier) openVMCore() (ok bool, err error) {
	name, ok := v.d.VMCorePath()
	if !ok {
		v.find(Finding{File: VMCoreName, Offset: -1, Where: "file", Text: "missing"})
		return false, nil
	}
	v.name = path.Base(name)
	if v.jr != nil && v.jr.seal != nil && v.name == IncompleteName {
		v.rep.Warnings = append(v.rep.Warnings, "the seal was interrupted before the file was renamed")
	}
	if v.vm, err = v.d.fs.Open(name); err != nil {
		return false, err
	}
	v.size, err = v.vm.Size()
	return err == nil, err
}

func (v *verifier) readVMCore() error {
	if err := v.front(); err != nil {
		return err
	}
	if err := v.data(); err != nil {
		return err
	}
	if v.jr.seal == nil {
		return nil
	}
	if want := v.jr.seal.size; v.size != want {
		at := min(v.size, want)
		v.find(Finding{File: v.name, Offset: at, Length: max(v.size, want) - at, Where: "file", Text: fmt.Sprintf("%d bytes long, not %d", v.size, want)})
	}
	return v.skip(v.size)
}

// errShort says that vmcore is too short.
var errShort = errors.New("file is too short")

// next reads the next n bytes of vmcore into p[:n] and adds them to the SHA-256.
func (v *verifier) next(p []byte) error {
	if err := v.ctx.Err(); err != nil {
		return err
	}
	n, err := v.vm.ReadAt(p, v.pos)
	_, _ = v.sum.Write(p[:n]) // a hash takes everything
	v.pos += int64(n)
	if n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			return errShort
		}
		return err
	}
	v.progress()
	return nil
}

func (v *verifier) progress() {
	if v.opts.Progress != nil && (v.pos-v.told >= 1<<20 || v.pos == v.size) {
		v.told = v.pos
		v.opts.Progress(v.pos, v.size)
	}
}

// hole adds the hole at pos to the SHA-256 without reading it, up to offset end, and reports whether there is one.
func (v *verifier) hole(end int64) (bool, error) {
	if err := v.ctx.Err(); err != nil {
		return false, err
	}
	n := hashHole(v.sum, v.vm, v.pos, min(end, v.size))
	v.pos += n
	v.progress()
	return n > 0, nil
}

// skip reads up to offset end without a check.
func (v *verifier) skip(end int64) error {
	for v.pos < end {
		if hole, err := v.hole(end); err != nil {
			return err
		} else if hole {
			continue
		}
		if err := v.next(v.buf[:min(int64(len(v.buf)), end-v.pos)]); err != nil {
			return err
		}
	}
	return nil
}

// zeros reads up to offset end and calls wrong for every byte that is not zero.
func (v *verifier) zeros(end int64, wrong func(off int64, got byte)) error {
	for v.pos < end {
		if hole, err := v.hole(end); err != nil {
			return err
		} else if hole {
			continue
		}
		at := v.pos
		p := v.buf[:min(int64(len(v.buf)), end-at)]
		if err := v.next(p); err != nil {
			return err
		}
		if vmcore.IsZero(p) {
			continue
		}
		for i, b := range p {
			if b != 0 {
				wrong(at+int64(i), b)
			}
		}
	}
	return nil
}

// notZero returns a function for zeros that reports each wrong byte.
func (v *verifier) notZero(where string) func(off int64, got byte) {
	return func(off int64, got byte) {
		v.find(Finding{File: v.name, Offset: off, Length: 1, Where: where, Text: fmt.Sprintf("byte is %#02x, has to be zero", got)})
	}
}

// sums compares SHA256SUMS and the seal with the bytes that were read.
func (v *verifier) sums() error {
	want, err := v.wantSums()
	if err != nil {
		return err
	}
	b, err := readSmall(v.d.fs, path.Join(v.d.dir, SumsName), maxSumsLen)
	if errors.Is(err, fs.ErrNotExist) {
		v.find(Finding{File: SumsName, Offset: -1, Where: "sums", Text: "missing"})
		return nil
	}
	if err := v.damage(err); err != nil {
		return err
	}
	v.compareSums(string(b), want)
	return nil
}

// wantSums returns the expected lines of SHA256SUMS, by file.
func (v *verifier) wantSums() (map[string]string, error) {
	want := make(map[string]string)
	for _, name := range []string{JournalName, ManifestName} {
		_, sum, err := hashFile(v.d.fs, path.Join(v.d.dir, name), v.ctx.Err)
		if err := ignoreNotExist(err); err != nil {
			return nil, err
		}
		want[name] = sumLine(sum, name)
	}
	if v.jr.log != nil {
		want[LogName] = sumLine(v.jr.log.sum, LogName)
	}
	kept, err := readKept(v.d.fs, v.d.dir) // again, because one may be new
	if err := ignoreDamage(err); err != nil {
		return nil, err
	}
	for _, f := range kept {
		want[f.path()] = f.sumLine()
	}
	if v.jr.plan != nil && v.vm != nil {
		v.rep.SHA256 = hex.EncodeToString(v.sum.Sum(nil))
		sum := v.jr.seal.sum
		want[VMCoreName] = sumLine(sum, VMCoreName)
		if v.rep.SHA256 != hex.EncodeToString(sum[:]) && v.rep.Damaged == 0 {
			v.find(Finding{File: v.name, Offset: -1, Where: "file", Text: "SHA-256 is not the one of the seal, but no byte was found wrong"})
		}
	}
	return want, nil
}

// compareSums compares SHA256SUMS line by line.
func (v *verifier) compareSums(have string, want map[string]string) {
	for line := range strings.Lines(have) {
		_, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		exp, ok := want[name]
		delete(want, name)
		if ok && line == exp || ok && !alike(line, exp) && v.named(name) {
			continue
		}
		f := Finding{File: SumsName, Offset: -1, Where: "sums", Text: fmt.Sprintf("wrong line %q", clean(line, maxText))}
		if ok && !alike(line, exp) && name == ManifestName {
			f.File, f.Text = name, "SHA-256 is not the one in "+SumsName
		}
		v.find(f)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		v.find(Finding{File: SumsName, Offset: -1, Where: "sums", Text: "no line for " + name})
	}
}

// alike reports whether two sums differ so little that the line is damaged, not the file. Sums of different files
// share about one digit in 16.
func alike(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	same := 0
	for i := range len(a) {
		if a[i] == b[i] {
			same++
		}
	}
	return same > len(a)*3/4
}

// named reports whether the report has damage of a file.
func (v *verifier) named(name string) bool {
	return slices.ContainsFunc(v.rep.Findings, func(f Finding) bool { return f.File == name })
}

// front checks everything before the page data, and the descriptors of all chunks.
func (v *verifier) front() error {
	h := v.jr.facts.header()
	l, err := h.Layout(v.jr.plan.Pages)
	if err != nil {
		return err
	}
	l.Data = v.jr.plan.DataOffset
	v.layout = l
	finished, err := v.d.Finished()
	if err != nil {
		return err
	}
	if finished {
		v.warn("the dump is complete; its seal, with the SHA-256 of the file, is still to come")
	}
	front, err := h.EncodeFront(v.as != StateComplete && !finished)
	if err != nil {
		return err
	}
	head := &comparer{v: v, region: headerRegion(v.layout)}
	if _, err := io.Copy(head, bytes.NewReader(front)); err != nil {
		return err
	}
	if err := v.bitmaps(h); err != nil {
		return err
	}
	return v.descs()
}
