// Package initrd packs the initramfs of a capture kernel: corehaul-send as /init, kernel
// modules with their dependencies and firmware, the configuration, and the keys for its
// targets. For a target on a disk of the running machine it finds the drivers by itself.
//
// The archive is a newc cpio (Documentation/driver-api/early-userspace/
// buffer-format.rst in the kernel tree), compressed with gzip, zstd or not at all.
// The same input gives the same bytes: entries are sorted, times and owners are zero,
// inode numbers count up. Modules are packed without their own compression. Keys and
// configuration are secret and have mode 0600. The archive has that mode too, and must
// not be given to other machines.
//
// Module indexes (modules.dep and others) are bounded and checked. They come from the
// machine's own root file system and are not treated as hostile. Values of this package
// are not safe for concurrent use.
package initrd

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/corehaul/corehaul/internal/elf64"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/disk"
)

// Compressions are the values of Options.Compression. gzip and zstd need CONFIG_RD_GZIP or CONFIG_RD_ZSTD of the kernel,
// which distributions set.
var Compressions = []string{"gzip", "zstd", "none"}

// Options says what goes into the archive.
type Options struct {
	// Init is the path of the program that becomes /init: a static corehaul-send.
	Init string
	// KernelModules is /lib/modules/VERSION. It may be empty if no module is wanted.
	KernelModules string
	// Modules are loaded after those of the configuration; see Tree.Resolve.
	Modules []string
	// Config is the path of the configuration file.
	Config string
	// CheckKeys checks whether the files with keys fit the targets. Its argument has their present paths. It may be nil.
	CheckKeys func(*config.File) error
	// Compression is one of Compressions. Empty means gzip.
	Compression string
	// System is the running system, where the file systems of targets are looked for.
	System disk.System
	// Devices are directories below the sysfs of System, such as class/net/eth0/device. The drivers of these devices are packed,
	// and those of the buses above them.
	Devices []string
}

// A Report says what Pack put into the archive.
type Report struct {
	Modules []Module
	// Builtin lists wanted modules, and their dependencies, that are built into the kernel.
	Builtin []string
	// Network lists the drivers of network hardware in the archive or, if there are none, in the kernel image. It is
	// empty without KernelModules.
	Network []string
	// Disks are the file systems of file:// targets, Mountable those that the capture kernel has a driver for: ext4, xfs, btrfs.
	// Mountable is empty without KernelModules.
	Disks     []Disk
	Mountable []string
	// Missing lists drivers of Options.Devices that KernelModules does not have.
	Missing []string
	// Firmware is the size of the packed firmware in bytes. NoFirmware lists modules whose firmware was not found.
	Firmware   int64
	NoFirmware []string
	// Programs are the packed files of [programs], their interpreters, and the shell. A file may be there more than once.
	Programs []Program
	// Files counts the entries. Unpacked is their size in the capture kernel's memory, Packed the size of the archive,
	// both in bytes.
	Files            int
	Unpacked, Packed int64
	// Loaded is the memory that the modules take when they are loaded, in bytes, beside their files.
	Loaded int64
	To     []string
}

// maxPacked bounds a file that is packed unchanged.
const maxPacked = 1 << 30

// Create writes the archive to the file out, which appears complete or not at all.
func Create(out string, o Options) (*Report, error) {
	p, err := plainfile.CreatePending(out)
	if err != nil {
		return nil, err
	}
	defer p.Abort()
	rep, err := Pack(p, o)
	if err != nil {
		return nil, err
	}
	return rep, p.Commit()
}

// A layout says where the program and the kernel modules are in an image.
type layout struct{ init, modules string }

// ownImage is that of an image that has nothing else.
var ownImage = layout{init: "init", modules: "lib/modules"}

// Pack writes the archive to w.
func Pack(w io.Writer, o Options) (*Report, error) {
	p, err := collect(o, ownImage)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "etc"} {
		p.dir(dir)
	}
	// The kernel opens the console for PID 1 before anything is mounted.
	p.add(cpio.CharDev("dev/console", 0o600, 5, 1))
	p.add(cpio.CharDev("dev/null", 0o666, 1, 3))
	p.add(cpio.CharDev("dev/kmsg", 0o600, 1, 11))

	count := &countingWriter{w: w}
	z, err := compressor(count, o.Compression)
	if err != nil {
		return nil, err
	}
	if err := p.write(z); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	p.report.Packed = count.n
	return p.report, nil
}

// collect finds and checks all files of an image.
func collect(o Options, at layout) (*packer, error) {
	p := &packer{layout: at, report: &Report{}, firmware: map[string]bool{}}
	if err := p.addInit(o.Init); err != nil {
		return nil, err
	}
	cfg, err := p.addConfig(o)
	if err != nil {
		return nil, err
	}
	if p.report.Disks, err = findDisks(o.System, cfg.To); err != nil {
		return nil, &config.Error{File: o.Config, Key: "to", Err: err}
	}
	if err := p.addPrograms(slices.Concat(cfg.Programs.Pre, cfg.Programs.Post)); err != nil {
		return nil, &config.Error{File: o.Config, Key: "programs", Err: err}
	}
	if err := p.addShell(cfg); err != nil {
		return nil, &config.Error{File: o.Config, Key: "shell", Err: err}
	}
	if err := p.addModules(o, slices.Concat(cfg.Network.Modules(), cfg.Modules, o.Modules)); err != nil {
		return nil, err
	}
	return p, nil
}

type packer struct {
	layout
	machine elf.Machine
	records []cpio.Record
	dirs    map[string]bool
	// firmware has the paths of packed firmware.
	firmware map[string]bool
	report   *Report
}

func (p *packer) addInit(file string) error {
	data, err := plainfile.Read(file, maxPacked)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	m, err := checkInit(file, data)
	if err != nil {
		return err
	}
	p.machine = m
	p.file(p.init, data, 0o755)
	return nil
}

// addConfig packs the configuration and its keys. It checks them first, because a mistake that is only found in the capture
// kernel costs the dump.
func (p *packer) addConfig(o Options) (*config.File, error) {
	text, err := plainfile.Read(o.Config, maxPacked)
	if err != nil {
		return nil, config.Unreadable(o.Config, err)
	}
	cfg, err := config.Parse(o.Config, text)
	if err != nil {
		return nil, err
	}
	if err := cfg.CheckCapture(); err != nil {
		return nil, &config.Error{File: o.Config, Err: err}
	}
	if err := p.addKeys(o, cfg); err != nil {
		return nil, err
	}
	p.file(rel(config.Path), text, 0o600)
	p.report.To = cfg.To
	return cfg, nil
}

// addKeys packs the key files that the configuration names.
func (p *packer) addKeys(o Options, cfg *config.File) error {
	found := *cfg
	for _, k := range []struct {
		key  string
		file *string
		at   string
	}{
		{"identity", &found.Identity, config.IdentityPath},
		{"ssh_key", &found.SSHKey, config.SSHKeyPath},
		{"known_hosts", &found.KnownHosts, config.KnownHostsPath},
	} {
		if *k.file == "" {
			continue
		}
		if !filepath.IsAbs(*k.file) {
			*k.file = filepath.Join(filepath.Dir(o.Config), *k.file)
		}
		data, err := plainfile.Read(*k.file, maxPacked)
		if err != nil {
			return fmt.Errorf("%s: %w", k.key, err)
		}
		p.file(rel(k.at), data, 0o600)
	}
	if o.CheckKeys == nil {
		return nil
	}
	if err := o.CheckKeys(&found); err != nil {
		return fmt.Errorf("%s: %w", o.Config, err)
	}
	return nil
}

func (p *packer) addModules(o Options, wanted []string) error {
	if o.KernelModules == "" {
		if len(wanted) > 0 {
			return fmt.Errorf("modules are wanted (%s) but no directory of kernel modules is given", strings.Join(wanted, ", "))
		}
		p.file(rel(config.ModulesPath), nil, 0o644)
		return nil
	}
	t, err := OpenTree(o.KernelModules)
	if err != nil {
		return err
	}
	forDisks, err := t.modulesOf(o.System.SysDir(), p.report.Disks)
	if err != nil {
		return err
	}
	forDevices, missing, err := t.modulesFor(driversOfAll(o.System.SysDir(), o.Devices))
	if err != nil {
		return err
	}
	p.report.Missing = missing
	list, builtin, err := t.Resolve(slices.Concat(wanted, forDevices, forDisks))
	if err != nil {
		return err
	}
	p.report.Modules, p.report.Builtin, p.report.Mountable = list, builtin, t.fileSystemDrivers(list)
	registers := map[string]bool{}
	var order bytes.Buffer
	for _, m := range list {
		data, err := readModule(filepath.Join(t.dir, m.Path))
		if err != nil {
			return &ModuleError{Module: m.Name, Err: err}
		}
		f, err := p.checkModule(data)
		if err != nil {
			return &ModuleError{Module: m.Name, Err: err}
		}
		registers[m.Name] = registersInterface(f)
		p.report.Loaded += loadedSize(f)
		if err := p.addFirmware(t, m.Name, firmwareOf(f)); err != nil {
			return err
		}
		at := path.Join(p.modules, t.release, unpackedPath(m.Path))
		p.file(at, data, 0o644)
		fmt.Fprintf(&order, "/%s %s\n", at, m.Params)
	}
	p.file(rel(config.ModulesPath), order.Bytes(), 0o644)
	if p.report.Network = t.networkDrivers(list, registers); len(p.report.Network) == 0 {
		p.report.Network = t.builtinNetworkDrivers()
	}
	return nil
}

// checkModule refuses a module of another machine than init.
func (p *packer) checkModule(data []byte) (*elf64.File, error) {
	f, err := elf64.Read(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if f.Machine != p.machine {
		return nil, fmt.Errorf("is for %v, but init is for %v", f.Machine, p.machine)
	}
	return f, nil
}

func (p *packer) file(name string, data []byte, perm uint64) {
	p.report.Unpacked += int64(len(data))
	p.add(cpio.StaticRecord(data, cpio.Info{Name: name, Mode: cpio.S_IFREG | perm}))
}

// add adds a record and the directories above it, which the kernel does not make by itself.
func (p *packer) add(r cpio.Record) {
	if d := path.Dir(r.Name); d != "." {
		p.dir(d)
	}
	p.records = append(p.records, r)
}

func (p *packer) dir(name string) {
	if p.dirs == nil {
		p.dirs = map[string]bool{}
	}
	for d := name; d != "." && !p.dirs[d]; d = path.Dir(d) {
		p.dirs[d] = true
		p.records = append(p.records, cpio.Directory(d, 0o755))
	}
}

// sorted returns all records by name, so that directories come before their contents.
func (p *packer) sorted() []cpio.Record {
	// slices.SortFunc would make 30 KB of code for records of this size.
	sort.Slice(p.records, func(i, j int) bool { return p.records[i].Name < p.records[j].Name })
	return p.records
}

func (p *packer) write(w io.Writer) error {
	out := cpio.Newc.Writer(w)
	for i, r := range p.sorted() {
		r = cpio.MakeReproducible(r)
		r.Ino = uint64(i) + 1
		r.NLink = 1
		if err := out.WriteRecord(r); err != nil {
			return fmt.Errorf("archive: %w", err)
		}
	}
	p.report.Files = len(p.records)
	return cpio.WriteTrailer(out)
}

func rel(p string) string { return strings.TrimPrefix(p, "/") }

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// zstdWindow bounds the memory that the capture kernel needs to unpack the archive.
const zstdWindow = 4 << 20

func compressor(w io.Writer, name string) (io.WriteCloser, error) {
	switch name {
	case "", "gzip":
		// No name and no time in the header: the same input gives the same bytes. The best compression takes three times as
		// long for 1 % less.
		return gzip.NewWriter(w), nil
	case "zstd":
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(zstdWindow),
			zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	case "none":
		return nopCloser{w}, nil
	}
	return nil, fmt.Errorf("compression %q is none of %s: %w", name, strings.Join(Compressions, ", "), errors.ErrUnsupported)
}
