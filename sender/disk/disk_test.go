package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

const testUUID = "01234567-89ab-cdef-0123-456789abcdef"

// imageLen is the length of a test device: enough for the superblocks, and a multiple of 64 KiB.
const imageLen = 128 << 10

// madeBy has the superblocks that mkfs made, and their places.
var madeBy = map[string]struct {
	file  string
	at    int
	label string
}{
	"ext4":  {"mkfs.ext4-1.47.0", ext4At, "crash dumps"},
	"xfs":   {"mkfs.xfs-6.1.0", xfsAt, "crash-dumps"},
	"btrfs": {"mkfs.btrfs-6.2", btrfsAt, `a label with "quotes"`},
}

// image returns a device with the superblock of a kind of file system.
func image(tb testing.TB, kind string) []byte {
	tb.Helper()
	m := madeBy[kind]
	sb, err := os.ReadFile(filepath.Join("testdata", m.file))
	if err != nil {
		tb.Fatal(err)
	}
	b := make([]byte, imageLen)
	copy(b[m.at:], sb)
	return b
}

func read(b []byte) (*Superblock, error) { return ReadSuperblock(bytes.NewReader(b), int64(len(b))) }

// TestSuperblocks reads what mkfs wrote.
func TestSuperblocks(t *testing.T) {
	for kind, m := range madeBy {
		got, err := read(image(t, kind))
		want := Superblock{Type: kind, UUID: testUUID, Label: m.label}
		if err != nil || *got != want {
			t.Errorf("%s: %+v, %v, want %+v", kind, got, err, want)
		}
	}
}

// TestTrouble: what must not be written to is known by its superblock.
func TestTrouble(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	for name, tc := range map[string]struct {
		kind, has string
		change    func(b []byte)
	}{
		"ext4 with errors":     {"ext4", "has errors", func(b []byte) { le.PutUint16(b[ext4At+ext4State:], 3) }},
		"xfs to repair":        {"xfs", "needs a repair", func(b []byte) { b[xfsIncompat+3] |= xfsNeedsRepair }},
		"btrfs of two":         {"btrfs", "2 devices", func(b []byte) { le.PutUint64(b[btrfsAt+btrfsDevices:], 2) }},
		"RAID member 1.0":      {"ext4", "software RAID", func(b []byte) { le.PutUint32(b[imageLen-8192:], mdMagic) }},
		"RAID member 0.90":     {"xfs", "software RAID", func(b []byte) { le.PutUint32(b[imageLen-65536:], mdMagic) }},
		"RAID of a big endian": {"xfs", "software RAID", func(b []byte) { be.PutUint32(b[imageLen-65536:], mdMagic) }},
		"LUKS":                 {"ext4", "encrypted (LUKS)", func(b []byte) { copy(b, luksMagicValue); copy(b[luksUUID:], testUUID) }},
	} {
		b := image(t, tc.kind)
		tc.change(b)
		sb, err := read(b)
		if err != nil || !strings.Contains(sb.Trouble, tc.has) || sb.Remedy == "" || sb.UUID != testUUID {
			t.Errorf("%s: %+v, %v", name, sb, err)
		}
	}
	b := image(t, "ext4")
	le.PutUint32(b[ext4At+ext4Incompat:], ext4JournalDev)
	for name, b := range map[string][]byte{"a journal": b, "nothing": make([]byte, imageLen), "a short device": make([]byte, 700), "an empty one": nil} {
		if sb, err := read(b); !errors.Is(err, ErrNoFilesystem) {
			t.Errorf("%s: %+v, %v", name, sb, err)
		}
	}
}

// FuzzReadSuperblock: a device is hostile. What is read of it is bounded.
func FuzzReadSuperblock(f *testing.F) {
	for kind := range madeBy {
		f.Add(image(f, kind))
	}
	f.Add([]byte(luksMagicValue + strings.Repeat("x", luksLen)))
	f.Fuzz(func(t *testing.T, b []byte) {
		sb, err := read(b)
		if err != nil {
			if sb != nil || !errors.Is(err, ErrNoFilesystem) {
				t.Errorf("%+v, %v", sb, err)
			}
			return
		}
		if len(sb.Label) > btrfsLabelLength || len(sb.UUID) > luksUUIDLength || strings.ContainsRune(sb.Label, 0) {
			t.Errorf("%+v", sb)
		}
	})
}

func TestParseSpec(t *testing.T) {
	for s, want := range map[string]Spec{
		"UUID=" + testUUID: {UUID: testUUID}, "UUID=" + strings.ToUpper(testUUID): {UUID: testUUID},
		"LABEL=a b+c": {Label: "a b+c"}, "/dev/vda1": {Device: "vda1"},
		"UUID=": {}, "UUID=0123": {}, "UUID=zzzzzzzz-89ab-cdef-0123-456789abcdef": {}, "LABEL=": {}, "vda1": {}, "/dev/": {}, "/dev/..": {},
		"/dev/mapper/root": {}, "/dev/disk/by-uuid/x": {}, "/dev/a/b": {}, "PARTUUID=" + testUUID: {}, "": {}, "LABEL=" + strings.Repeat("x", 256): {},
	} {
		got, err := ParseSpec(s)
		if got != want || (err == nil) == want.IsZero() {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
		if err == nil && !strings.EqualFold(got.String(), s) {
			t.Errorf("%q is written %q", s, got)
		}
	}
}

// machine is a system with disks.
func machine(t *testing.T) System {
	t.Helper()
	dir := t.TempDir()
	s := System{Sys: filepath.Join(dir, "sys"), Dev: filepath.Join(dir, "dev"), MountInfo: filepath.Join(dir, "mountinfo")}
	if err := errors.Join(os.MkdirAll(filepath.Join(s.Sys, "class/block"), 0o700), os.Mkdir(s.Dev, 0o700), os.WriteFile(s.MountInfo, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	return s
}

// plug adds a disk. files are in its directory of sysfs.
func plug(t *testing.T, s System, name string, data []byte, files ...string) {
	t.Helper()
	device := filepath.Join(s.Sys, "devices", name)
	err := os.MkdirAll(device, 0o700)
	write := func(file, text string) {
		file = filepath.Join(device, file)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600))
	}
	write("size", strconv.Itoa(len(data)/512)+"\n")
	write("dev", "252:0\n")
	for _, f := range files {
		file, text, _ := strings.Cut(f, "=")
		write(file, text)
	}
	err = errors.Join(err, os.WriteFile(filepath.Join(s.Dev, name), data, 0o600), os.Symlink(device, filepath.Join(s.Sys, "class/block", name)))
	if err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	s := machine(t)
	other := image(t, "xfs")
	other[xfsUUID] = 0xff
	plug(t, s, "vda", make([]byte, imageLen))
	plug(t, s, "vda1", image(t, "ext4"))
	plug(t, s, "vdb", other)
	plug(t, s, "zram0", image(t, "ext4"))
	plug(t, s, "sr0", nil)
	for spec, want := range map[Spec]string{
		{UUID: testUUID}: "vda1", {Label: "crash dumps"}: "vda1", {Label: "crash-dumps"}: "vdb", {Device: "vdb"}: "vdb",
	} {
		if d, err := s.Find(spec); err != nil || d.Name != want {
			t.Errorf("%v: %+v, %v, want %s", spec, d, err, want)
		}
	}
	_, err := s.Find(Spec{Label: "none"})
	var missing *NotFoundError
	if !errors.As(err, &missing) || len(missing.There) != 2 || !strings.Contains(err.Error(), "vda1 (ext4 UUID="+testUUID+" LABEL=crash dumps)") {
		t.Errorf("%v, want what is there", err)
	}
	if err := os.Remove(filepath.Join(s.Dev, "vdb")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(Spec{Label: "crash-dumps"}); !errors.As(err, &missing) || len(missing.Unread) != 1 {
		t.Errorf("%v, want the device that cannot be read", err)
	}
}

// TestRefused: a file system that a capture kernel would not have, or that is in two places.
func TestRefused(t *testing.T) {
	for has, files := range map[string][]string{
		"logical volume (LVM)": {"dm/uuid=LVM-abc"}, "encrypted (dm-crypt)": {"dm/uuid=CRYPT-LUKS2-abc"}, "multipath": {"dm/uuid=mpath-1"},
		"device mapper": {"dm/uuid=x"}, "software RAID": {"md/level=raid1"}, "loop device": {"loop/backing_file=/x"}, "is a part of md0": {"holders/md0=x"},
	} {
		s := machine(t)
		plug(t, s, "x0", image(t, "ext4"), files...)
		_, err := s.Find(Spec{UUID: testUUID})
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), has) || refused.Hint == "" {
			t.Errorf("%s: %v", has, err)
		}
	}
	s := machine(t)
	plug(t, s, "sda1", image(t, "ext4"))
	plug(t, s, "sdb1", image(t, "ext4"))
	if _, err := s.Find(Spec{UUID: testUUID}); err == nil || !strings.Contains(err.Error(), "several devices have it: sda1, sdb1") {
		t.Errorf("two devices: %v", err)
	}
	plug(t, s, "dm-0", image(t, "ext4"), "dm/uuid=mpath-1")
	if _, err := s.Find(Spec{UUID: testUUID}); err == nil || !strings.Contains(err.Error(), "multipath") {
		t.Errorf("two paths to one disk: %v", err)
	}
}

// TestCheckDir: the path within a file system is not that of the running system.
func TestCheckDir(t *testing.T) {
	s := machine(t)
	plug(t, s, "vda1", image(t, "ext4"))
	at := filepath.Join(t.TempDir(), "a b")
	if err := os.MkdirAll(filepath.Join(at, "crash"), 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := s.Find(Spec{UUID: testUUID})
	if err != nil {
		t.Fatal(err)
	}
	check := func(line, dir string) error {
		if err := os.WriteFile(s.MountInfo, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.CheckDir(d, dir)
	}
	escaped := strings.ReplaceAll(at, " ", `\040`)
	whole := fmt.Sprintf("36 35 252:0 / %s rw,noatime shared:1 - ext4 /dev/elsewhere rw\n", escaped)
	subvolume := fmt.Sprintf("36 35 0:33 /@ %s rw - btrfs /dev/vda1 rw\n", escaped)
	for dir, line := range map[string]string{"/crash": whole, "/": whole, "/@/crash": subvolume, "/other/crash": subvolume, "/x": "", "/y": "\n- -\n"} {
		if err := check(line, dir); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if err := check(whole, at+"/crash"); err == nil || !strings.Contains(err.Error(), "vda1 has no directory "+at+"/crash") || !strings.HasSuffix(err.Error(), at+"/crash is /crash there") {
		t.Errorf("the path of the running system: %v", err)
	}
	if err := check(subvolume, "/@/none"); err == nil || !strings.Contains(err.Error(), "vda1 has no directory /@/none") {
		t.Errorf("a missing directory: %v", err)
	}
}

// kernel is one that mounts and unmounts nothing.
type kernel struct {
	err     error
	takes   time.Duration
	mounted []string
}

func (k *kernel) mount(source, target, kind string, flags uintptr, data string) error {
	time.Sleep(k.takes)
	if k.err == nil {
		k.mounted = append(k.mounted, target)
	}
	if flags&unix.MS_RDONLY != 0 || kind == "ext4" && data != "errors=remount-ro" {
		return unix.EINVAL
	}
	return k.err
}

func (k *kernel) unmount(target string, _ int) error {
	for i, m := range k.mounted {
		if m == target {
			k.mounted = append(k.mounted[:i], k.mounted[i+1:]...)
			return nil
		}
	}
	return unix.EINVAL
}

func mounts(t *testing.T, s System, k *kernel) *Mounts {
	t.Helper()
	return &Mounts{System: s, Dir: filepath.Join(t.TempDir(), "run"), Log: t.Logf, mount: k.mount, unmount: k.unmount}
}

// TestMount mounts a file system once, when it appears, and unmounts it.
func TestMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, k := machine(t), &kernel{takes: time.Minute}
		m := mounts(t, s, k)
		start := time.Now()
		go func() {
			time.Sleep(3 * time.Second)
			plug(t, s, "vda", image(t, "ext4"))
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		if dir, err := m.Open(ctx, Spec{UUID: testUUID}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "still mounting") {
			t.Fatalf("%s, %v, want the deadline", dir, err)
		}
		dir, err := m.Open(t.Context(), Spec{UUID: testUUID})
		again, err2 := m.Open(t.Context(), Spec{UUID: testUUID})
		if err := errors.Join(err, err2); err != nil || dir != again || len(k.mounted) != 1 || k.mounted[0] != dir {
			t.Fatalf("%s, %s, %v, mounted: %q", dir, again, err, k.mounted)
		}
		if took := time.Since(start); took > 64*time.Second {
			t.Errorf("it took %v", took)
		}
		if err := m.Close(); err != nil || len(k.mounted) != 0 {
			t.Errorf("unmount: %v, still mounted: %q", err, k.mounted)
		}
	})
}

// TestMountMissing: a device that does not come.
func TestMountMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mounts(t, machine(t), &kernel{})
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		_, err := m.Open(ctx, Spec{Label: "x"})
		if _, ok := errors.AsType[*NotFoundError](err); !ok || !strings.Contains(err.Error(), "no disk has the file system LABEL=x; there is none") {
			t.Errorf("%v", err)
		}
	})
}

// TestMountTooLate: a mount that ends after Close is undone.
func TestMountTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, k := machine(t), &kernel{takes: time.Minute}
		plug(t, s, "vda", image(t, "xfs"))
		m := mounts(t, s, k)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.Open(ctx, Spec{UUID: testUUID})
		if closeErr := m.Close(); err == nil || closeErr != nil {
			t.Errorf("%v, %v", err, closeErr)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(k.mounted) != 0 {
			t.Errorf("still mounted: %q", k.mounted)
		}
	})
}

// TestMountWhileClosing: a mount that Close finds mounted, and its caller not told, is undone too.
func TestMountWhileClosing(t *testing.T) {
	s, k := machine(t), &kernel{}
	plug(t, s, "vda", image(t, "ext4"))
	m := mounts(t, s, k)
	m.Log = func(string, ...any) {
		if err := m.Close(); err != nil || len(k.mounted) != 0 {
			t.Errorf("unmount: %v, still mounted: %q", err, k.mounted)
		}
	}
	if _, err := m.Open(t.Context(), Spec{UUID: testUUID}); err != nil {
		t.Error(err)
	}
}

// TestMountErrors: the kernel's errors say what to do. A later try may succeed.
func TestMountErrors(t *testing.T) {
	s := machine(t)
	plug(t, s, "vda", image(t, "btrfs"))
	k := &kernel{}
	m := mounts(t, s, k)
	for err, has := range map[error]string{
		unix.EUCLEAN: "damaged", unix.EBADMSG: "damaged", unix.ENODEV: "no driver for btrfs", unix.EROFS: "read-only", unix.EINVAL: "invalid argument",
	} {
		k.err = err
		_, got := m.Open(t.Context(), Spec{UUID: testUUID})
		var refused *RefusedError
		if !errors.As(got, &refused) || !strings.Contains(got.Error(), has) || refused.Hint == "" {
			t.Errorf("%v: %v", err, got)
		}
	}
	k.err = nil
	if _, err := m.Open(t.Context(), Spec{UUID: testUUID}); err != nil {
		t.Error(err)
	}
}
