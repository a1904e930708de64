package e2e

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/pages"
	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
	"github.com/corehaul/corehaul/vmcore/elfcore"
)

// TestLevels holds the pages kept at the dump levels to makedumpfile, and the log to
// crash, on every machine of the lab's matrix. What makedumpfile kept stays in the
// lab's cache, so that only the first run takes minutes.
func TestLevels(t *testing.T) {
	t.Parallel()
	for _, s := range lab.Matrix() {
		t.Run(s.Name(), func(t *testing.T) {
			t.Parallel()
			d := levelsOpen(t, s)
			if slices.Contains([]string{"6.12-arm64", "backports-arm64-16k"}, s.Kernel) {
				// makedumpfile 1.7.8 reads none of them.
				t.Run("kpageflags", d.matchesPageFlags)
			} else {
				for _, level := range []pages.DumpLevel{0, 1, 2, 4, 8, 16, 23, 31} {
					t.Run(fmt.Sprintf("level %d", level), func(t *testing.T) { d.matchesMakedumpfile(t, level) })
				}
			}
			t.Run("log", d.logMatches)
		})
	}
}

// levelsDump is a dump of the lab, opened as a sender opens /proc/vmcore.
type levelsDump struct {
	captured *lab.Captured
	kernel   *lab.Kernel
	image    *elfcore.File
	memory   *kernel.Kernel
	pages    *pages.Classifier
}

func levelsOpen(t *testing.T, s lab.Scenario) *levelsDump {
	t.Helper()
	captured, err := lab.CaptureELF(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	k, err := lab.GetKernel(t.Context(), s.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	image, err := elfcore.Open(captured.ELF)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := image.Close(); err != nil {
			t.Error(err)
		}
	})
	d := &levelsDump{captured: captured, kernel: k, image: image}
	d.understand(t)
	return d
}

// understand makes the readers of kernel memory; a warning means that they would keep
// more than they should.
func (d *levelsDump) understand(t *testing.T) {
	t.Helper()
	var err error
	d.memory, err = machine.Kernel(d.image, d.image.Info())
	if err != nil {
		t.Fatal(err)
	}
	if d.pages, err = pages.New(d.memory, d.image.RAM()); err != nil {
		t.Fatal(err)
	}
	for _, w := range slices.Concat(d.memory.Warnings(), d.pages.Warnings()) {
		t.Errorf("warning: %s", w)
	}
}

// matchesMakedumpfile compares the kept pages of a level, and at the highest their
// contents.
func (d *levelsDump) matchesMakedumpfile(t *testing.T, level pages.DumpLevel) {
	t.Helper()
	want, err := d.reference(t.Context(), t.TempDir(), level)
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.kept(t.Context(), level)
	if err != nil {
		t.Fatal(err)
	}
	// What the file has of a frame that RAM ends in belongs to the dump. makedumpfile keeps such a frame when it is done in
	// one cycle, and drops it when its bitmaps lie in memory: on the small machines among these.
	got = levelsMinus(got, levelsMinus(levelsTails(d.image.RAM()), want.Runs))
	if !slices.Equal(got, want.Runs) {
		levelsReport(t, "kept by corehaul alone", levelsMinus(got, want.Runs))
		levelsReport(t, "kept by makedumpfile alone", levelsMinus(want.Runs, got))
		return
	}
	t.Logf("%d pages kept in %d runs", levelsCount(got), len(got))
	if level != pages.MaxLevel {
		return
	}
	sums, err := levelsSums(d.image, got)
	if err != nil {
		t.Fatal(err)
	}
	levelsCompareSums(t, got, sums, want.Sums)
}

// levelsTails are the frames that a range ends in.
func levelsTails(ram []mem.Range) []mem.Extent {
	const pageShift = 12
	var tails []mem.Extent
	for _, r := range ram {
		if pfn := r.End.PFN(pageShift); pfn.Addr(pageShift) != r.End {
			tails = mem.AppendExtent(tails, mem.Extent{Start: pfn, Count: 1})
		}
	}
	return tails
}

// kept is what a level keeps of the dump. Pages of zeros are among it: makedumpfile too
// sets their bits at the levels that leave them out, and stores one page for them all.
func (d *levelsDump) kept(ctx context.Context, level pages.DumpLevel) ([]mem.Extent, error) {
	var kept []mem.Extent
	err := d.pages.Walk(ctx, level, func(r pages.Run) error {
		if !r.Excluded {
			kept = mem.AppendExtent(kept, r.Extent)
		}
		return nil
	})
	return kept, err
}

// A levelsReference is what makedumpfile made of a dump.
type levelsReference struct {
	Runs []mem.Extent // the 2nd bitmap
	Sums []uint32     // CRC-32 of each page of Runs, at the highest level only
}

// levelsVersion is that of the reference files. Raise it when they change.
const levelsVersion = 1

// reference has makedumpfile filter the dump, or remembers what came out the last time.
func (d *levelsDump) reference(ctx context.Context, tmp string, level pages.DumpLevel) (*levelsReference, error) {
	version, err := d.makedumpfileVersion(ctx)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(lab.CacheDir(), "levels", filepath.Base(d.captured.Dir),
		fmt.Sprintf("v%d-makedumpfile-%s-level-%d", levelsVersion, version, level))
	var ref levelsReference
	b, err := os.ReadFile(file)
	switch {
	case err == nil:
		return &ref, gob.NewDecoder(bytes.NewReader(b)).Decode(&ref)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	out := filepath.Join(tmp, "dump")
	if _, err := d.kernel.Makedumpfile(ctx, "-d", fmt.Sprint(level), d.captured.ELF, out); err != nil {
		return nil, err
	}
	if err := ref.read(out, level == pages.MaxLevel); err != nil {
		return nil, err
	}
	if err := os.Remove(out); err != nil {
		return nil, err
	}
	return &ref, levelsSave(file, &ref)
}

var levelsVersionLine = regexp.MustCompile(`version (\d[\w.]*)`)

func (d *levelsDump) makedumpfileVersion(ctx context.Context) (string, error) {
	out, err := d.kernel.Makedumpfile(ctx, "-v")
	if err != nil {
		return "", err
	}
	m := levelsVersionLine.FindStringSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("no version in %q", out)
	}
	return m[1], nil
}

// read fills in the reference from makedumpfile's file.
func (ref *levelsReference) read(path string, contents bool) error {
	r, err := dumpfile.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	if ref.Runs, err = levelsCollect(r.Pages()); err != nil || !contents {
		return err
	}
	ref.Sums, err = levelsSums(r, ref.Runs)
	return err
}

// levelsSave writes a reference so that nobody sees half of it.
func levelsSave(file string, ref *levelsReference) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".new-")
	if err != nil {
		return err
	}
	err = errors.Join(gob.NewEncoder(f).Encode(ref), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Bits of /proc/kpageflags (include/uapi/linux/kernel-page-flags.h in the kernel tree).
const (
	levelsFlagSlab    = 1 << 7
	levelsFlagBuddy   = 1 << 10
	levelsFlagAnon    = 1 << 12
	levelsFlagHuge    = 1 << 17
	levelsFlagOffline = 1 << 23
)

// matchesPageFlags compares the classes that the kernel can tell as well with what it
// told. It did so a moment before the panic, while it ran on two CPUs and while writing
// the record took memory itself, so some frames have come and gone in between: 0.5 % of
// them may. Free frames in a CPU's own list count as free nowhere (is_free_buddy_page).
func (d *levelsDump) matchesPageFlags(t *testing.T) {
	b, err := os.ReadFile(d.captured.KPageFlags)
	if err != nil {
		t.Fatal(err)
	}
	classes, err := d.classes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ram, err := levelsCollect(d.image.Pages())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		class pages.Class
		mask  uint64
	}{
		{pages.Free, levelsFlagBuddy},
		{pages.User, levelsFlagAnon | levelsFlagHuge},
		{pages.Offline, levelsFlagOffline},
	} {
		told := levelsFlagged(b, ram, c.mask)
		alone, missed := levelsMinus(classes[c.class], told), levelsMinus(told, classes[c.class])
		t.Logf("%s: %d frames, %d told by the kernel; %d and %d alone", c.class,
			levelsCount(classes[c.class]), levelsCount(told), levelsCount(alone), levelsCount(missed))
		const most = 200 // one in so many: 0.5 %
		if levelsCount(alone)+levelsCount(missed) > levelsCount(ram)/most {
			levelsReport(t, c.class.String()+" alone", alone)
			levelsReport(t, c.class.String()+" for the kernel alone", missed)
		}
	}
}

// classes are the frames of each class.
func (d *levelsDump) classes(ctx context.Context) (classes [pages.NumClasses][]mem.Extent, err error) {
	err = d.pages.Walk(ctx, pages.MaxLevel, func(r pages.Run) error {
		classes[r.Class] = mem.AppendExtent(classes[r.Class], r.Extent)
		return nil
	})
	return classes, err
}

// levelsFlagged are the frames of ram that have a bit of mask in flags, a copy of
// /proc/kpageflags. Frames of slab have none: 6.12 calls some of them anonymous, because
// it looks at the word that is the mapping in other frames.
func levelsFlagged(flags []byte, ram []mem.Extent, mask uint64) []mem.Extent {
	const entry = 8
	var found []mem.Extent
	for _, e := range ram {
		for pfn := e.Start; pfn < e.End() && uint64(pfn) < uint64(len(flags)/entry); pfn++ {
			if f := binary.LittleEndian.Uint64(flags[pfn*entry:]); f&mask != 0 && f&levelsFlagSlab == 0 {
				found = mem.AppendExtent(found, mem.Extent{Start: pfn, Count: 1})
			}
		}
	}
	return found
}

// logMatches compares the log with that of crash, which has symbols for the x86_64
// kernels; on arm64 with what the guest's own dmesg had said up to the panic.
func (d *levelsDump) logMatches(t *testing.T) {
	var b strings.Builder
	if err := printk.Dump(d.memory, &b); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(b.String(), "\n")
	if !strings.Contains(b.String(), "Kernel panic - not syncing") {
		t.Error("the log does not have the panic")
	}
	var want []string
	if d.image.Info().Machine == elf.EM_X86_64 {
		want = d.crashLog(t)
	} else {
		want = d.guestLog(t, got)
		got = got[:min(len(got), len(want))]
	}
	if len(want) < 100 {
		t.Errorf("a log of %d lines to compare with, want a boot's worth", len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("line %d is %q, want %q", i+1, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d lines, want %d", len(got), len(want))
	}
	t.Logf("%d lines", len(want))
}

func (d *levelsDump) crashLog(t *testing.T) []string {
	t.Helper()
	return strings.Split(judgesCrashOriginal(t, d.captured, "log")["log"], "\n")
}

var levelsDmesgLine = regexp.MustCompile(`^<\d+>(\[ *\d+\.\d+\] )(.*)$`)

// guestLog gives dmesg's lines the form of crash's: without the level, and where like
// has an indented line, which dmesg never has, indented instead of stamped.
func (d *levelsDump) guestLog(t *testing.T, like []string) []string {
	t.Helper()
	b, err := os.ReadFile(d.captured.Dmesg)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		m := levelsDmesgLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			t.Fatalf("dmesg has the line %q", line)
		}
		stamp := m[1]
		if n := len(lines); n < len(like) && strings.HasPrefix(like[n], " ") {
			stamp = strings.Repeat(" ", len(stamp))
		}
		lines = append(lines, stamp+m[2])
	}
	return lines
}

// levelsSums are the CRC-32 of the pages of runs.
func levelsSums(image vmcore.Image, runs []mem.Extent) ([]uint32, error) {
	page := make([]byte, image.Info().PageSize)
	sums := make([]uint32, 0, levelsCount(runs))
	for _, e := range runs {
		for pfn := e.Start; pfn < e.End(); pfn++ {
			if err := image.ReadPage(page, pfn); err != nil {
				return nil, fmt.Errorf("pfn %#x: %w", uint64(pfn), err)
			}
			sums = append(sums, crc32.ChecksumIEEE(page))
		}
	}
	return sums, nil
}

// levelsCompareSums names the first page that differs.
func levelsCompareSums(t *testing.T, runs []mem.Extent, got, want []uint32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d pages, want %d", len(got), len(want))
	}
	i := 0
	for _, e := range runs {
		for pfn := e.Start; pfn < e.End(); pfn++ {
			if got[i] != want[i] {
				t.Fatalf("the contents of pfn %#x are not makedumpfile's", uint64(pfn))
			}
			i++
		}
	}
}

func levelsCollect(seq iter.Seq2[mem.Extent, error]) ([]mem.Extent, error) {
	var list []mem.Extent
	for e, err := range seq {
		if err != nil {
			return nil, err
		}
		list = mem.AppendExtent(list, e)
	}
	return list, nil
}

// levelsMinus are the frames of a that are not in b. Both ascend.
func levelsMinus(a, b []mem.Extent) []mem.Extent {
	var left []mem.Extent
	taken := mem.NewSplitter(b)
	for _, e := range a {
		for part, isTaken := range taken.Split(e) {
			if !isTaken {
				left = mem.AppendExtent(left, part)
			}
		}
	}
	return left
}

func levelsCount(list []mem.Extent) uint64 {
	n := uint64(0)
	for _, e := range list {
		n += e.Count
	}
	return n
}

// levelsReport fails the test with the first frames of list, if there are any.
func levelsReport(t *testing.T, what string, list []mem.Extent) {
	t.Helper()
	if len(list) == 0 {
		return
	}
	var first []string
	for _, e := range list[:min(len(list), 5)] {
		first = append(first, fmt.Sprintf("%#x+%d", uint64(e.Start), e.Count))
	}
	t.Errorf("%s: %d frames, the first (pfn+count): %s", what, levelsCount(list), strings.Join(first, ", "))
}
