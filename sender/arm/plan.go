package arm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/sender/arm/cmdline"
	"github.com/corehaul/corehaul/sender/arm/kexec"
	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/disk"
	"github.com/corehaul/corehaul/sender/initrd"
)

// Options say what to load.
type Options struct {
	// Root is the directory of the running system. Empty means /.
	Root string
	// Config is the path of the configuration file.
	Config string
	// Kernel is the file of the capture kernel. Empty means that of the configuration, or else the running one.
	Kernel string
	// Init is the static corehaul-send that becomes /init.
	Init string
	// Tool names this program and its version.
	Tool string
	// CheckKeys is that of initrd.Options.
	CheckKeys func(*config.File) error
	// Ways is asked for the network if the configuration says nothing about it. Nil means DHCP on all interfaces.
	Ways Ways
	// Replace takes away an image that somebody else has loaded.
	Replace bool
}

func (o Options) root() string {
	if o.Root == "" {
		return "/"
	}
	return o.Root
}

// A Plan is what Arm loads: a kernel and an image, packed in memory.
type Plan struct {
	Record Record
	// Report says what the image has.
	Report *initrd.Report
	config *config.File
	way    way

	kernel, image *os.File
}

// Close frees the memory.
func (p *Plan) Close() {
	for _, f := range []*os.File{p.kernel, p.image} {
		if f != nil {
			_ = f.Close() // memory
		}
	}
}

func newPlan(o Options) *Plan {
	return &Plan{Record: Record{ID: rand.Text(), Time: time.Now().UTC().Truncate(time.Second), Tool: o.Tool}}
}

// Findings says what Look will find about the network that was copied.
func (p *Plan) Findings() []Finding { return p.way.findings(&p.Record) }

// Prepare checks the configuration and its keys, finds the kernel, the drivers of this machine and its way to the targets, and packs the
// image. It changes nothing. If no target has a way, the last one that was copied for this configuration counts, or else DHCP on all interfaces.
// Plan.Findings says so.
func Prepare(ctx context.Context, o Options) (*Plan, error) {
	p := newPlan(o)
	if err := p.prepare(ctx, o); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// look reads what the image depends on, whatever its kernel: configuration, program and network.
func (p *Plan) look(ctx context.Context, o Options) error {
	if err := p.readConfig(o); err != nil {
		return err
	}
	program, err := plainfile.Read(o.Init, maxProgram)
	if err != nil {
		return fmt.Errorf("this program: %w", err)
	}
	p.Record.Program = File{Path: o.Init, SHA256: digest(program)}
	p.findWay(ctx, o)
	return nil
}

func (p *Plan) prepare(ctx context.Context, o Options) error {
	if err := p.look(ctx, o); err != nil {
		return err
	}
	running, err := release(o.root())
	if err != nil {
		return err
	}
	line, err := runningLine(o.root())
	if err != nil {
		return err
	}
	named := o.Kernel
	if named == "" {
		named = p.config.Arm.Kernel
	}
	var image kexec.Image
	if p.Record.Kernel, image, p.kernel, err = findKernel(o.root(), named, running, line); err != nil {
		return err
	}
	p.Record.Kernel.Chosen = p.config.Arm.Kernel != "" && named == p.config.Arm.Kernel
	if p.Record.Kernel.Release == "" && named == "" {
		p.Record.Kernel.Release = running
	}
	if err := p.pack(o); err != nil {
		return err
	}
	if err := p.setNeeds(o.root(), image); err != nil {
		return err
	}
	return p.setCmdline(o.root(), line, image)
}

// findWay copies the network of the running system. While that reaches no target, because a cable is out, say, the last copy counts.
func (p *Plan) findWay(ctx context.Context, o Options) {
	p.way = wayOf(ctx, o.root(), p.config, o.Ways)
	last, err := readRecord(o.root(), armedFile)
	if p.way.unknown() && !p.way.found && err == nil && last != nil && last.Config == p.Record.Config {
		p.way.keep(last)
	}
	p.Record.Network = p.way.words()
	p.Record.Devices = devices(filepath.Join(o.root(), "sys"), p.config, p.way)
}

// readConfig reads the configuration, and notes the files that go into the image.
func (p *Plan) readConfig(o Options) error {
	path, err := filepath.Abs(o.Config)
	if err != nil {
		return err
	}
	text, err := plainfile.Read(path, maxConfig)
	if err != nil {
		return config.Unreadable(path, err)
	}
	if p.config, err = config.Parse(path, text); err != nil {
		return err
	}
	p.Record.Config = File{Path: path, SHA256: digest(text)}
	absoluteKeys(path, p.config)
	for _, key := range []string{p.config.Identity, p.config.SSHKey, p.config.KnownHosts} {
		if key == "" {
			continue
		}
		data, err := plainfile.Read(key, maxConfig)
		if err != nil {
			return &config.Error{File: path, Err: fmt.Errorf("it names a file that cannot be read: %w", err)}
		}
		p.Record.Keys = append(p.Record.Keys, File{Path: key, SHA256: digest(data)})
	}
	p.Record.To = p.config.To
	return nil
}

// absoluteKeys makes the paths of a configuration's key files absolute: they are relative to the configuration.
func absoluteKeys(path string, c *config.File) {
	for _, f := range []*string{&c.Identity, &c.SSHKey, &c.KnownHosts} {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(filepath.Dir(path), *f)
		}
	}
}

// packing says what goes into the image.
func (p *Plan) packing(o Options) initrd.Options {
	opts := initrd.Options{
		Init: o.Init, Config: p.Record.Config.Path, CheckKeys: o.CheckKeys, Devices: p.Record.Devices, Modules: p.way.network.Modules(),
		System: system(o.root()),
	}
	tree := filepath.Join(o.root(), "lib/modules", p.Record.Kernel.Release)
	if _, err := os.Stat(tree); p.Record.Kernel.Release != "" && !errors.Is(err, fs.ErrNotExist) {
		opts.KernelModules = tree
	}
	return opts
}

// pack packs the image into memory.
func (p *Plan) pack(o Options) error {
	opts := p.packing(o)
	var err error
	p.image, err = kexec.InMemory("image", func(w io.Writer) error {
		p.Report, err = initrd.Pack(w, opts)
		return err
	})
	if err != nil {
		return err
	}
	p.notePacked()
	return nil
}

// notePacked records what was packed.
func (p *Plan) notePacked() {
	r := &p.Record
	for _, name := range p.Report.Missing {
		r.Lacking = append(r.Lacking, initrd.CanonicalName(name))
	}
	for _, m := range p.Report.Modules {
		r.Modules = append(r.Modules, m.Name)
	}
	r.Modules = append(r.Modules, p.Report.Builtin...)
	for _, program := range p.Report.Programs {
		f := File{Path: program.Path, SHA256: hex.EncodeToString(program.SHA256[:])}
		if !slices.Contains(r.Programs, f) {
			r.Programs = append(r.Programs, f)
		}
	}
	r.Packed, r.Unpacked = uint64(max(0, p.Report.Packed)), uint64(max(0, p.Report.Unpacked))
}

// system is where the running system shows its disks.
func system(root string) disk.System {
	return disk.System{Sys: filepath.Join(root, "sys"), Dev: filepath.Join(root, "dev"), MountInfo: filepath.Join(root, "proc/self/mountinfo")}
}

// elfcorehdr is the room that the kernel needs for the word that it adds: elfcorehdr=0x and 16 digits.
const elfcorehdr = len(" elfcorehdr=0x0123456789abcdef")

// setCmdline makes the command line of the capture kernel.
func (p *Plan) setCmdline(root, running string, image kexec.Image) error {
	remove, add := p.config.Arm.Remove, p.config.Arm.Add
	if remove == nil {
		remove = cmdline.Remove
	}
	if add == nil {
		add = cmdline.Add
	}
	// The last word of a name counts, which is that of the configuration.
	add = slices.Concat(p.Record.Network, add, p.interfaceWord(root), []string{p.Record.mark()})
	line := cmdline.Capture(running, remove, add)
	if limit := image.CmdlineMax - elfcorehdr; image.CmdlineMax > 0 && len(line) > limit {
		return fmt.Errorf("the command line of the capture kernel has %d bytes, and %s takes %d: remove words with remove under [arm] in %s: %s",
			len(line), p.Record.Kernel.Path, limit, p.Record.Config.Path, line)
	}
	p.Record.Cmdline = line
	return nil
}

// interfaceWord names the configured interface by its address, if it has one.
func (p *Plan) interfaceWord(root string) []string {
	if mac := addressOf(root, p.config.Network.Interface); mac != "" {
		return []string{"corehaul.interface=" + mac}
	}
	return nil
}

// addressOf returns the MAC address of an interface that has a device, empty if there is none of this name. A capture kernel has
// no udev, so that an interface may have another name there.
func addressOf(root, name string) string {
	dir := filepath.Join(root, "sys/class/net", name)
	if name == "" || strings.Contains(name, "/") || !hasDevice(dir) {
		return ""
	}
	text, _ := plainfile.Read(filepath.Join(dir, "address"), maxSmall) // an interface that has just gone has none
	return strings.TrimSpace(string(text))
}

func hasDevice(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "device"))
	return err == nil
}
