package dumpdir

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
)

// withoutSeal checks a dump whose journal is lost or has lost the seal: it compares pages with the journal as far as
// possible, decodes the others, and compares all files with SHA256SUMS.
func (v *verifier) withoutSeal() error {
	sums, err := readSmall(v.d.fs, path.Join(v.d.dir, SumsName), maxSumsLen)
	if err := ignoreNotExist(v.damage(err)); err != nil {
		return err
	}
	want := ParseSums(string(sums))
	if v.rep.Compared = ComparedNothing; len(want.sums) > 0 {
		v.rep.Compared = ComparedSums
	}
	if err := v.lostVMCore(); err != nil {
		return err
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(want.sums)), func(name string) bool {
		return name == VMCoreName || v.named(name) || !fs.ValidPath(name)
	})
	for _, name := range names {
		if err := v.sumOf(name, want); err != nil {
			return err
		}
	}
	return nil
}

// sumOf compares a file with SHA256SUMS.
func (v *verifier) sumOf(name string, want *Sums) error {
	exp, _ := want.Of(name)
	_, sum, err := hashFile(v.d.fs, path.Join(v.d.dir, name), v.ctx.Err)
	f := Finding{File: name, Offset: -1, Where: "sums"}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Text = "missing"
	case err != nil:
		return err
	case hex.EncodeToString(sum[:]) != exp:
		f.Text = "SHA-256 is not the one in " + SumsName
	default:
		return nil
	}
	v.find(f)
	return nil
}

// lostVMCore reads vmcore: the part that the journal knows, and the whole file.
func (v *verifier) lostVMCore() error {
	exp, err := v.d.sealSum()
	if err != nil {
		return err
	}
	if _, there := v.d.VMCorePath(); !there && exp == "" && v.d.m.Plan == nil {
		return nil // a log-only dump
	}
	if ok, err := v.openVMCore(); err != nil || !ok {
		return err
	}
	before := v.rep.Damaged
	err = v.lostPages()
	if errors.Is(err, errShort) {
		v.find(Finding{File: v.name, Offset: v.size, Where: "file", Text: fmt.Sprintf("ends at %d, before pages that the journal has", v.size)})
		err = nil
	}
	if err = errors.Join(err, v.vm.Close()); err != nil {
		return err
	}
	v.rep.SHA256 = hex.EncodeToString(v.sum.Sum(nil))
	switch {
	case exp == "":
		v.warn("nothing says which SHA-256 %s had", v.name)
	case v.rep.SHA256 == exp:
		v.warn("%s has the SHA-256 of its seal: its pages are as they were stored", v.name)
	case v.rep.Damaged == before:
		v.find(Finding{File: v.name, Offset: -1, Where: "file", Text: "SHA-256 is not the one of the seal"})
	}
	return nil
}

func (v *verifier) warn(format string, args ...any) {
	v.rep.Warnings = append(v.rep.Warnings, fmt.Sprintf(format, args...))
}

// lostPages computes the SHA-256 of vmcore and checks its pages.
func (v *verifier) lostPages() error {
	if v.jr == nil || v.jr.plan == nil {
		return v.decodedPages()
	}
	if err := v.skip(v.jr.plan.firstPage()); err != nil {
		return err
	}
	if err := v.data(); err != nil {
		return err
	}
	v.warn("pages that the journal has lost were not compared with it")
	return v.skip(v.size)
}

// decodedPages decodes pages without a journal.
func (v *verifier) decodedPages() error {
	own := &Report{}
	if err := verifyImage(v.ctx, v.vm, v.size, v.opts, own); err != nil {
		return err
	}
	for _, f := range own.Findings {
		v.find(f)
	}
	v.rep.Damaged += own.Damaged - uint64(len(own.Findings))
	v.rep.Warnings = append(v.rep.Warnings, own.Warnings...)
	v.warn("the journal is beyond use: pages were decoded, not compared with it")
	return v.skip(v.size)
}
