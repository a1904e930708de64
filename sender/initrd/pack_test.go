package initrd

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
	"github.com/ulikunitz/xz"

	"github.com/corehaul/corehaul/sender/config"
)

const (
	machineX86 = 62
	machineArm = 183
)

// tinyELF is the smallest ELF file: a header with nothing behind it but a tail that
// tells files apart.
func tinyELF(machine uint16, interp bool, tail string) []byte {
	b := make([]byte, 64+56)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[58:], 64)
	if interp {
		le.PutUint64(b[32:], 64)
		le.PutUint16(b[56:], 1)
		le.PutUint32(b[64:], 3)
	}
	return append(b, tail...)
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func packed(t *testing.T, suffix string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch suffix {
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	case ".gz":
		w = gzip.NewWriter(&b)
	default:
		return data
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// testTree lays out a modules directory like those of Debian's cloud kernels.
func testTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "6.1.0-test")
	for file, machine := range map[string]uint16{
		"kernel/virtio.ko": machineX86, "kernel/virtio_ring.ko.xz": machineX86, "kernel/virtio-net.ko.zst": machineX86,
		"kernel/failover.ko.gz": machineX86, "kernel/net_failover.ko": machineX86, "kernel/crc_fast.ko": machineX86,
		"kernel/arm_only.ko": machineArm, "kernel/ext4.ko": machineX86, "kernel/a.ko": machineX86, "kernel/b.ko": machineX86,
		"kernel/helper.ko": machineX86,
	} {
		write(t, filepath.Join(dir, file), packed(t, filepath.Ext(file), tinyELF(machine, false, file)))
	}
	write(t, filepath.Join(dir, "modules.dep"), []byte(strings.Join([]string{
		"kernel/virtio.ko: kernel/virtio_ring.ko.xz",
		"kernel/virtio_ring.ko.xz:",
		"kernel/virtio-net.ko.zst: kernel/net_failover.ko kernel/failover.ko.gz kernel/virtio.ko kernel/virtio_ring.ko.xz",
		"kernel/failover.ko.gz:",
		"kernel/net_failover.ko: kernel/failover.ko.gz",
		"kernel/crc_fast.ko:",
		"kernel/helper.ko:",
		"kernel/arm_only.ko:",
		"kernel/ext4.ko: kernel/gone.ko",
		"kernel/a.ko: kernel/b.ko",
		"kernel/b.ko: kernel/a.ko",
	}, "\n")))
	write(t, filepath.Join(dir, "modules.builtin"), []byte("kernel/net/packet/af-packet.ko\n"))
	write(t, filepath.Join(dir, "modules.alias"), []byte("# Aliases\nalias crc32c crc_fast\nalias virtio:d00000001v* virtio_net\n"))
	write(t, filepath.Join(dir, "modules.softdep"), []byte("softdep net_failover pre: crc32c missing_one post: helper virtio-net\n"))
	return dir
}

func TestResolve(t *testing.T) {
	tree, err := OpenTree(testTree(t))
	if err != nil {
		t.Fatal(err)
	}
	list, builtin, err := tree.Resolve([]string{"virtio-net napi_tx=0", "virtio_ring", "af_packet"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range list {
		names = append(names, m.Name)
	}
	want := []string{"virtio_ring", "virtio", "failover", "crc_fast", "net_failover", "helper", "virtio_net"}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("load order, -want +got\n%s", d)
	}
	if d := cmp.Diff([]string{"af_packet"}, builtin); d != "" {
		t.Errorf("built in, -want +got\n%s", d)
	}
	if got := list[len(list)-1].Params; got != "napi_tx=0" {
		t.Errorf("parameters %q", got)
	}
}

func TestResolveErrors(t *testing.T) {
	tree, err := OpenTree(testTree(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		wanted string
		is     error
		has    string
	}{
		{"virtio_nte", ErrUnknownModule, "virtio_net"},
		{"nosuchthingatall", ErrUnknownModule, "unknown"},
		{"ext4", nil, "needs gone"},
		{"a", ErrModuleCycle, "itself"},
		{" ", nil, "no name"},
	} {
		_, _, err := tree.Resolve([]string{tc.wanted})
		var me *ModuleError
		if !errors.As(err, &me) || (tc.is != nil && !errors.Is(err, tc.is)) || !strings.Contains(err.Error(), tc.has) {
			t.Errorf("%q: got %v, want a ModuleError with %q", tc.wanted, err, tc.has)
		}
	}
}

func TestOpenTreeErrors(t *testing.T) {
	if _, err := OpenTree(t.TempDir()); err == nil || !strings.Contains(err.Error(), "modules.dep") {
		t.Errorf("wrong directory: got %v", err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "modules.dep"), []byte("# x\n\n../../etc/shadow: \n"))
	if _, err := OpenTree(dir); err == nil || !strings.Contains(err.Error(), "modules.dep:3") {
		t.Errorf("path outside: got %v, want the line", err)
	}
}

// testOptions returns what Pack needs for a whole archive.
func testOptions(t *testing.T, conf string) Options {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "init"), tinyELF(machineX86, false, "init"))
	write(t, filepath.Join(dir, "id.pem"), []byte("secret"))
	write(t, filepath.Join(dir, "send.toml"), []byte(conf))
	return Options{
		Init: filepath.Join(dir, "init"), Config: filepath.Join(dir, "send.toml"),
		KernelModules: testTree(t), Modules: []string{"virtio_net"},
	}
}

const goodConfig = "to = [\"tls://192.0.2.1:7443\"]\nidentity = \"id.pem\"\nmodules = [\"virtio_ring\"]\n"

func readArchive(t *testing.T, r io.Reader) map[string]cpio.Record {
	t.Helper()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]cpio.Record{}
	seen := []string{}
	err = cpio.ForEachRecord(cpio.Newc.Reader(bytes.NewReader(data)), func(r cpio.Record) error {
		if d := filepath.Dir(r.Name); d != "." && !slices.Contains(seen, d) {
			t.Errorf("%s comes before its directory", r.Name)
		}
		seen = append(seen, r.Name)
		records[r.Name] = r
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func contents(t *testing.T, r cpio.Record) string {
	t.Helper()
	b := make([]byte, r.FileSize)
	if _, err := r.ReadAt(b, 0); err != nil && len(b) > 0 {
		t.Fatal(err)
	}
	return string(b)
}

func TestPack(t *testing.T) {
	for _, compression := range Compressions {
		t.Run(compression, func(t *testing.T) {
			o := testOptions(t, goodConfig)
			o.Compression = compression
			var b, again bytes.Buffer
			rep, err := Pack(&b, o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Pack(&again, o); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
				t.Errorf("packed twice, two results (%v)", err)
			}
			if rep.Packed != int64(b.Len()) {
				t.Errorf("reported %d bytes, wrote %d", rep.Packed, b.Len())
			}
			var r io.Reader = &b
			switch compression {
			case "gzip":
				if r, err = gzip.NewReader(&b); err != nil {
					t.Fatal(err)
				}
			case "zstd":
				if r, err = zstd.NewReader(&b); err != nil {
					t.Fatal(err)
				}
			}
			checkArchive(t, readArchive(t, r))
		})
	}
}

func checkArchive(t *testing.T, files map[string]cpio.Record) {
	t.Helper()
	for name, mode := range map[string]uint64{
		"init": cpio.S_IFREG | 0o755, "proc": cpio.S_IFDIR | 0o755, "dev/console": cpio.S_IFCHR | 0o600,
		"etc/corehaul/identity.pem": cpio.S_IFREG | 0o600, "etc/corehaul/send.toml": cpio.S_IFREG | 0o600,
		"lib/modules/6.1.0-test/kernel/virtio-net.ko": cpio.S_IFREG | 0o644,
	} {
		r, ok := files[name]
		if !ok {
			t.Errorf("%s is missing", name)
		} else if r.Mode != mode {
			t.Errorf("%s has mode %o, want %o", name, r.Mode, mode)
		}
	}
	order := strings.Split(strings.TrimSpace(contents(t, files[rel(config.ModulesPath)])), "\n")
	if len(order) != 7 || strings.TrimSpace(order[0]) != "/lib/modules/6.1.0-test/kernel/virtio_ring.ko" {
		t.Errorf("load order %q", order)
	}
	for _, line := range order {
		file, _, _ := strings.Cut(line, " ")
		if got := contents(t, files[rel(file)]); !strings.HasPrefix(got, "\x7fELF") {
			t.Errorf("%s is not unpacked", file)
		}
	}
	if got := contents(t, files["etc/corehaul/identity.pem"]); got != "secret" {
		t.Errorf("identity %q", got)
	}
}

const goodSSH = "to = [\"ssh://u@h\"]\n"

// TestPackSSH: key and known hosts are packed under their fixed names, closed to others, and an
// identity is not asked for.
func TestPackSSH(t *testing.T) {
	o := testOptions(t, goodSSH+"ssh_key = \"key\"\nknown_hosts = \"hosts\"\n")
	dir := filepath.Dir(o.Config)
	write(t, filepath.Join(dir, "key"), []byte("a key"))
	write(t, filepath.Join(dir, "hosts"), []byte("hosts"))
	o.CheckKeys = func(c *config.File) error {
		if c.SSHKey != filepath.Join(dir, "key") || c.KnownHosts != filepath.Join(dir, "hosts") || c.Identity != "" {
			t.Errorf("asked about %+v", c)
		}
		return nil
	}
	var b bytes.Buffer
	o.Compression = "none"
	if _, err := Pack(&b, o); err != nil {
		t.Fatal(err)
	}
	files := readArchive(t, &b)
	for name, want := range map[string]string{"etc/corehaul/ssh_key": "a key", "etc/corehaul/known_hosts": "hosts"} {
		if r := files[name]; r.Mode != cpio.S_IFREG|0o600 || contents(t, r) != want {
			t.Errorf("%s: mode %o, %q", name, r.Mode, contents(t, r))
		}
	}
	if _, ok := files["etc/corehaul/identity.pem"]; ok {
		t.Error("there is an identity")
	}
}

func TestPackErrors(t *testing.T) {
	for _, tc := range []struct {
		name   string
		conf   string
		change func(*testing.T, *Options)
		has    string
	}{
		{"no receiver", "identity = \"id.pem\"\n", nil, "no receiver"},
		{"no identity", "to = [\"tls://h:1\"]\n", nil, "no identity"},
		{"unknown key", goodConfig + "levels = 1\n", nil, "send.toml:4: levels"},
		{"identity missing", strings.Replace(goodConfig, "id.pem", "other.pem", 1), nil, "other.pem"},
		{"identity refused", goodConfig, func(_ *testing.T, o *Options) {
			o.CheckKeys = func(*config.File) error { return errors.New("no key in it") }
		}, "no key in it"},
		{"no key", goodSSH + "known_hosts = \"id.pem\"\n", nil, "no key for ssh://u@h"},
		{"key missing", goodSSH + "ssh_key = \"nokey\"\nknown_hosts = \"id.pem\"\n", nil, "ssh_key: "},
		{"known hosts missing", goodSSH + "ssh_key = \"id.pem\"\nknown_hosts = \"nohosts\"\n", nil, "nohosts"},
		{"dynamic init", goodConfig, func(t *testing.T, o *Options) {
			t.Helper()
			write(t, o.Init, tinyELF(machineX86, true, ""))
		}, "dynamically"},
		{"init of another kind", goodConfig, func(t *testing.T, o *Options) {
			t.Helper()
			write(t, o.Init, []byte("#!/bin/sh\n"))
		}, "init"},
		{"module of another machine", goodConfig, func(_ *testing.T, o *Options) { o.Modules = []string{"arm_only"} }, "EM_AARCH64"},
		{"unknown module", goodConfig, func(_ *testing.T, o *Options) { o.Modules = []string{"virtio_nat"} }, "virtio_net"},
		{"no directory", goodConfig, func(_ *testing.T, o *Options) { o.KernelModules = "" }, "no directory"},
		{"compression", goodConfig, func(_ *testing.T, o *Options) { o.Compression = "lzop" }, "lzop"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := testOptions(t, tc.conf)
			if tc.change != nil {
				tc.change(t, &o)
			}
			out := filepath.Join(t.TempDir(), "crash.img")
			_, err := Create(out, o)
			if err == nil || !strings.Contains(err.Error(), tc.has) {
				t.Fatalf("got %v, want %q", err, tc.has)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestCreateMode(t *testing.T) {
	out := filepath.Join(t.TempDir(), "crash.img")
	if _, err := Create(out, testOptions(t, goodConfig)); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, but an identity is inside", st.Mode())
	}
}

func FuzzModuleIndexes(f *testing.F) {
	f.Add("kernel/a.ko: kernel/b.ko\nkernel/b.ko:\n", "softdep a pre: b post: a\n", "alias c a\n", "c")
	f.Fuzz(func(t *testing.T, dep, soft, alias, want string) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "modules.dep"), []byte(dep))
		write(t, filepath.Join(dir, "modules.softdep"), []byte(soft))
		write(t, filepath.Join(dir, "modules.alias"), []byte(alias))
		tree, err := OpenTree(dir)
		if err != nil {
			return
		}
		list, _, err := tree.Resolve([]string{want})
		if err != nil && list != nil {
			t.Fatal("modules and an error")
		}
		seen := map[string]bool{}
		for _, m := range list {
			if seen[m.Name] {
				t.Fatalf("%s twice", m.Name)
			}
			seen[m.Name] = true
		}
	})
}
