package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/e2e/lab"
)

// A fileDisk is a disk image with a file system. The directory crash in it is for dumps.
type fileDisk struct{ kind, image, uuid, label string }

// fileDiskNew makes a file system of so many MiB. Each has a UUID of its own: the kernel mounts no two XFS with the same one, and
// tests run at the same time.
func fileDiskNew(tb testing.TB, kind, label string, mib int64) *fileDisk {
	tb.Helper()
	random, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	uuid := strings.TrimSpace(string(random))
	d := &fileDisk{kind: kind, image: filepath.Join(tb.TempDir(), label+".img"), uuid: uuid, label: label}
	if err := errors.Join(err, os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, mib<<20)); err != nil {
		tb.Fatal(err)
	}
	mkfs := map[string][]string{
		"ext4": {"mkfs.ext4", "-q", "-L", label, "-U", uuid, d.image},
		"xfs":  {"mkfs.xfs", "-q", "-L", label, "-m", "uuid=" + uuid, d.image},
	}[kind]
	captureCommand(tb, mkfs[0], mkfs[1:]...)
	dir, unmount := d.mount(tb)
	if err := os.Mkdir(filepath.Join(dir, "crash"), 0o755); err != nil {
		tb.Fatal(err)
	}
	unmount()
	return d
}

// mount mounts the file system until unmount is called or the test ends.
func (d *fileDisk) mount(tb testing.TB, options ...string) (dir string, unmount func()) {
	tb.Helper()
	dir = tb.TempDir()
	captureCommand(tb, "mount", "-o", strings.Join(append(options, "loop"), ","), d.image, dir)
	device := strings.TrimSpace(captureCommand(tb, "findmnt", "-nro", "SOURCE", dir))
	mounted := true
	unmount = func() {
		if mounted {
			captureCommand(tb, "umount", dir)
			mounted = false
			serveWait(tb, "the loop device to be free", func() bool { return d.detached(tb, device) })
		}
	}
	tb.Cleanup(func() {
		if mounted {
			_ = unix.Unmount(dir, unix.MNT_DETACH) // the test has failed
		}
	})
	return dir, unmount
}

// detached reports whether the loop device of an unmounted file system is free, or has another image. The kernel detaches it later than the
// file system: first it forgets the image, then it takes away the size (drivers/block/loop.c, __loop_clr_fd). Until then, mount
// refuses to make another one, and whoever looks for the label finds it on this device.
func (d *fileDisk) detached(tb testing.TB, device string) bool {
	tb.Helper()
	dir := filepath.Join("/sys/block", filepath.Base(device))
	size, err := os.ReadFile(filepath.Join(dir, "size"))
	image, _ := os.ReadFile(filepath.Join(dir, "loop/backing_file")) // there is none when it is free
	other := strings.TrimSpace(string(image))
	return captureCommand(tb, "losetup", "-j", d.image) == "" && (err != nil || strings.TrimSpace(string(size)) == "0" || other != "" && other != d.image)
}

// check has fsck look at the file system, which is not mounted.
func (d *fileDisk) check(tb testing.TB) {
	tb.Helper()
	fsck := map[string][]string{"ext4": {"e2fsck", "-f", "-n"}, "xfs": {"xfs_repair", "-n"}}[d.kind]
	out, err := exec.CommandContext(tb.Context(), fsck[0], append(fsck[1:], d.image)...).CombinedOutput()
	if err != nil {
		tb.Errorf("%s of %s: %v\n%s", fsck[0], d.label, err, out)
	}
}

// fileFullLine is what a sender says of a full disk.
var fileFullLine = regexp.MustCompile(`(?m)^corehaul-send: file://\S+: no-space: .*the disk is full: .*: no space left on device; `)

// TestFileTarget sends to mounted disks of this machine: ext4 is full, then read-only, and xfs takes the dump. A sender that is
// killed goes on. It takes 10 s of CPU time.
func TestFileTarget(t *testing.T) {
	t.Parallel()
	elf := failoverELF(t)
	want := judgesPages(t, filepath.Join(judgesServe(t).send(t, elf, "31", "--encoding", "snappy"), "vmcore"))
	small, large := fileDiskNew(t, "ext4", "small", 16), fileDiskNew(t, "xfs", "large", 512)
	full, unmountFull := small.mount(t)
	dir, unmount := large.mount(t)
	send := func(args ...string) string {
		_, said := judgesRun(t, 0, "corehaul-send", append(append([]string{"send", "--encoding", "snappy"}, args...), elf)...)
		return said
	}
	first, second := "file://"+full+"/crash", "file://"+dir+"/crash"
	if said := send("--to", first, "--to", second); !fileFullLine.MatchString(said) {
		t.Errorf("it does not say that the disk is full:\n%s", said)
	}
	sftpCheck(t, filepath.Join(dir, "crash"), want)
	_, said := judgesRun(t, 3, "corehaul-send", "send", "--patience", "0", "--to", first, elf)
	state, pages := (&judgesStore{data: filepath.Join(full, "crash")}).fileLeft(t)
	if state != "partial" || pages == 0 || pages >= want.Count {
		t.Errorf("on the full disk it is %s, %d of %d pages:\n%s", state, pages, want.Count, said)
	}
	unmountFull()
	small.check(t)
	readOnly, unmountReadOnly := small.mount(t, "ro")
	if err := os.Mkdir(filepath.Join(dir, "again"), 0o755); err != nil {
		t.Fatal(err)
	}
	again := "file://" + dir + "/again"
	if said := send("--to", "file://"+readOnly+"/crash", "--to", again); !strings.Contains(said, readOnly+"/crash: read-only file system; not tried again") {
		t.Errorf("it does not say that the disk is read-only:\n%s", said)
	}
	sftpCheck(t, filepath.Join(dir, "again"), want)
	unmountReadOnly()
	fileKill(t, dir, elf)
	unmount()
	large.check(t)
}

// fileImage packs the initramfs of a guest with file:// targets. The disks are not this machine's, so it names their drivers.
func fileImage(t *testing.T, kernel string, to ...string) string {
	t.Helper()
	k, err := lab.GetKernel(t.Context(), kernel)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config, initrd := filepath.Join(dir, "send.toml"), filepath.Join(dir, "capture.img")
	if err := os.WriteFile(config, fmt.Appendf(nil, "to = [\"%s\"]\npatience = \"2m\"\n", strings.Join(to, `", "`)), 0o600); err != nil {
		t.Fatal(err)
	}
	captureCommand(t, captureSender, "initrd", "--kernel-modules", k.ModulesDir, "--config", config, "-o", initrd,
		"--module", "virtio_blk", "--module", "ext4", "--module", "xfs")
	return initrd
}

// fileCapture lets a machine with disks panic, and returns what the sender in the capture kernel said.
func fileCapture(t *testing.T, kernel, initrd string, disks ...*fileDisk) string {
	t.Helper()
	opts := lab.SenderOptions{}
	for _, d := range disks {
		opts.Disks = append(opts.Disks, d.image)
	}
	said := captureRun(t, lab.Scenario{Kernel: kernel, MemMiB: 1 << 10}, initrd, opts)
	if !strings.Contains(said, "corehaul-send: dump complete: ") {
		t.Error("the dump is not complete")
	}
	if strings.Contains(said, "DHCP") || strings.Contains(said, "network") {
		t.Error("it set up a network")
	}
	return said
}

// checkDump checks that a disk has one complete dump of the panic, and that crash opens it once it is imported.
func (d *fileDisk) checkDump(t *testing.T, kernel string) {
	t.Helper()
	dir, unmount := d.mount(t)
	defer unmount()
	root := filepath.Join(dir, "crash")
	list := sftpList(t, root)
	if len(list) != 1 || list[0].Manifest.State != "complete" || !strings.Contains(list[0].Manifest.PanicLine, capturePanic) {
		t.Fatalf("on the disk: %+v, want one complete dump", list)
	}
	data := filepath.Join(t.TempDir(), "data")
	for _, want := range []string{"1 dumps imported", "0 dumps imported, 1 imported before"} {
		if out := captureCommand(t, captureReceiver, "import", root, "--data", data); !strings.Contains(out, want+"\n") {
			t.Errorf("import says %q, want %q", out, want)
		}
	}
	imported := sftpList(t, data)
	if len(imported) != 1 || imported[0].ID != list[0].ID || imported[0].Manifest.State != "complete" {
		t.Fatalf("imported: %+v", imported)
	}
	captureCommand(t, captureReceiver, "verify", list[0].ID, "--data", data)
	vmcore := filepath.Join(imported[0].Path, "vmcore")
	k, err := lab.GetKernel(t.Context(), kernel)
	if err != nil {
		t.Fatal(err)
	}
	vmlinux, err := k.Vmlinux(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out, err := lab.CrashEach(t.Context(), vmlinux, vmcore, "sys"); err != nil || !strings.Contains(out["sys"], "sysrq triggered crash") {
		t.Errorf("crash: %v\n%v", err, out)
	}
}

// TestCaptureFile lets a machine panic whose capture kernel writes to its disks. The first one, ext4, is full, so that the dump
// goes to the second one, XFS. It takes 40 s of CPU time: a guest, and crash.
func TestCaptureFile(t *testing.T) {
	t.Parallel()
	small, large := fileDiskNew(t, "ext4", "small", 16), fileDiskNew(t, "xfs", "large", 512)
	initrd := fileImage(t, "6.1", "file:///crash?fs=UUID="+small.uuid, "file:///crash?fs=LABEL=large")
	said := fileCapture(t, "6.1", initrd, small, large)
	if !fileFullLine.MatchString(said) {
		t.Error("it does not say that the first disk is full")
	}
	small.check(t)
	large.check(t)
	large.checkDump(t, "6.1")
}

// TestCaptureFileErrors lets a machine panic whose first disk has errors, and whose second target is nowhere, so that the dump goes to
// the third one. Nothing is written to the first one. It takes longer than other tests, because crash opens the dump of a second kernel.
func TestCaptureFileErrors(t *testing.T) {
	t.Parallel()
	bad, good := fileDiskNew(t, "ext4", "bad", 64), fileDiskNew(t, "ext4", "good", 256)
	captureCommand(t, "debugfs", "-w", "-R", "set_super_value state 2", bad.image)
	before := fileSum(t, bad.image)
	initrd := fileImage(t, "6.12", "file:///crash?fs=UUID="+bad.uuid, "file:///none?fs=UUID="+good.uuid, "file:///crash?fs=/dev/vdb")
	said := fileCapture(t, "6.12", initrd, bad, good)
	for _, line := range []string{
		"file system UUID=" + bad.uuid + ": its superblock says that it has errors; not tried again",
		"open /none: no such file or directory; not tried again",
	} {
		if !strings.Contains(said, line) {
			t.Errorf("it does not say %q", line)
		}
	}
	if fileSum(t, bad.image) != before {
		t.Error("the disk with errors was written")
	}
	good.check(t)
	good.checkDump(t, "6.12")
}

// fileSending is a line of progress with pages that are durable.
var fileSending = regexp.MustCompile(`^corehaul-send: sending: ([1-9]\d*) of \d+ pages`)

// TestCaptureFileCut cuts the power of a machine while its capture kernel writes to its disk. What the sender called durable is
// there after the journal's replay, and a receiver on the directory seals it.
func TestCaptureFileCut(t *testing.T) {
	t.Parallel()
	d := fileDiskNew(t, "ext4", "cut", 256)
	initrd := fileImage(t, "6.1", "file:///crash?fs=LABEL=cut")
	ctx, cancel := context.WithTimeout(t.Context(), captureTimeout)
	defer cancel()
	durable := 0
	opts := lab.SenderOptions{Disks: []string{d.image}, CaptureAppend: "corehaul.progress=200ms corehaul.level=1", OnLine: func(line string) {
		if m := fileSending.FindStringSubmatch(line); m != nil && durable == 0 {
			durable, _ = strconv.Atoi(m[1]) // the pattern has a number
			cancel()
		}
	}}
	if _, err := lab.RunSender(ctx, lab.Scenario{Kernel: "6.1", MemMiB: 1 << 10}, initrd, opts); durable == 0 {
		t.Fatalf("the power was not cut: %v", err)
	}
	dir, unmount := d.mount(t)
	s := judgesNew(t, "--resume-grace", "1s")
	s.data = filepath.Join(dir, "crash")
	s.start(t)
	serveWait(t, "the seal", func() bool {
		list := s.list(t)
		return len(list) == 1 && list[0].Manifest.State != "arriving"
	})
	s.end(t)
	state, pages := s.fileLeft(t)
	t.Logf("the power was cut with %d durable pages; the dump is %s with %d", durable, state, pages)
	if state != "partial" || pages < durable {
		t.Errorf("%s with %d pages, want it partial with at least %d", state, pages, durable)
	}
	unmount()
	d.check(t)
}

// fileSum returns the checksum of a file.
func fileSum(t *testing.T, name string) [sha256.Size]byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// fileLeft returns the state of the one dump in a store that no receiver served, and how many pages it has.
func (s *judgesStore) fileLeft(t *testing.T) (state string, pages int) {
	t.Helper()
	list := sftpList(t, s.data)
	if len(list) != 1 {
		t.Fatalf("%d dumps in %s, want one", len(list), s.data)
	}
	judgesRun(t, 3, "corehaul", "verify", "--data", s.data, list[0].ID)
	return list[0].Manifest.State, judgesPages(t, filepath.Join(list[0].Path, "vmcore")).Count
}

// fileKill kills a sender once some chunks are durable. The next one sends the others.
func fileKill(t *testing.T, dir, elf string) {
	t.Helper()
	want := judgesPages(t, filepath.Join(judgesServe(t).send(t, elf, "1", "--encoding", "none"), "vmcore"))
	root := filepath.Join(dir, "killed")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"--to", "file://" + root, "--level", "1", "--encoding", "none", elf}
	p := serveSend(t, nil, args...)
	serveWait(t, "pages on the disk", func() bool {
		journals, _ := filepath.Glob(filepath.Join(root, "dumps/*/*/chunks"))
		return len(journals) == 1 && fileAllocated(t, filepath.Join(filepath.Dir(journals[0]), "vmcore-incomplete")) > 32<<20
	})
	p.kill(t)
	if _, said := judgesRun(t, 0, "corehaul-send", append([]string{"send"}, args...)...); !regexp.MustCompile(`the receiver has [1-9]\d* of them`).MatchString(said) {
		t.Errorf("the next sender found nothing:\n%s", said)
	}
	sftpCheck(t, root, want)
}

// fileAllocated returns how many bytes of a file have a place on the disk, 0 if there is no such file.
func fileAllocated(t *testing.T, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return 0
	}
	return st.Blocks * 512
}
