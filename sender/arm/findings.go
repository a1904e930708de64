package arm

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/sender/arm/reservation"
	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/initrd"
)

// rearm is what most findings ask for.
func rearm(r *Record) string { return "run 'corehaul-send arm --config " + r.Config.Path + "'" }

// check looks for all that may keep the loaded image from a dump.
func (s *Status) check(ctx context.Context, root string, now loaded, ways Ways, probe Probe) {
	r := s.Loaded
	if now.unsure {
		s.stale(Interrupted, "an arm was interrupted: it is not known whether the old or the new image is loaded")
	}
	if s.Reserved < r.Needs {
		size := reservation.Word(reservation.Recommend(0, r.Needs))
		s.problem(SmallReserved, "boot with "+size+" ('corehaul-send arm --help' says how), or take modules out of the image",
			"%s are reserved, and the capture kernel needs about %s", bytesize.Format(s.Reserved), bytesize.Format(r.Needs))
	}
	s.checkKernel()
	s.checkProgram()
	c := s.checkConfig()
	s.checkBoot(root)
	if c == nil {
		return
	}
	s.checkDrivers(root, c, s.checkWay(ctx, root, c, ways))
	s.checkDisks(root, c)
	s.checkSysctls(root, c)
	if probe == nil {
		return
	}
	for _, to := range c.To {
		if err := probe(ctx, c, to); err != nil {
			s.problem(NotReachable, "see whether the receiver runs, and whether a firewall is in between; the capture kernel asks it in the same way",
				"%s does not answer: %v", to, err)
		}
	}
}

// checkKernel compares the image with the running kernel.
func (s *Status) checkKernel() {
	k := s.Loaded.Kernel
	if k.Release != "" && k.Release != s.Kernel && !k.Chosen {
		s.problem(OtherKernel, rearm(s.Loaded)+", or name "+k.Path+" as kernel under [arm] there if you want this one",
			"the capture kernel is %s (%s), and the running kernel is %s", k.Release, k.Path, s.Kernel)
	}
	data, err := plainfile.Read(k.Path, maxKernel)
	if err == nil && digest(data) != k.SHA256 {
		s.note(KernelChanged, rearm(s.Loaded), "%s has changed since it was loaded; the loaded one is as it was", k.Path)
	}
}

// checkProgram compares the program in the image with its file. An old one still dumps.
func (s *Status) checkProgram() {
	p := s.Loaded.Program
	data, err := plainfile.Read(p.Path, maxProgram)
	if err == nil && digest(data) != p.SHA256 {
		s.note(ProgramChanged, rearm(s.Loaded), "%s has changed since it was packed; the image has the old one", p.Path)
		s.Findings[len(s.Findings)-1].Rearm = true
	}
}

// checkDisks looks for the file systems of the targets.
func (s *Status) checkDisks(root string, c *config.File) {
	sys := system(root)
	for _, to := range c.To {
		t, err := config.LocalTarget(to)
		if err != nil {
			continue // it needs the network
		}
		d, err := sys.Find(t.FS)
		if err == nil {
			err = sys.CheckDir(d, t.Dir)
		}
		if err != nil {
			s.problem(DiskMissing, "correct to in "+s.Loaded.Config.Path+" ('lsblk -f' shows what there is), or bring the disk back; then "+rearm(s.Loaded), "%s: %v", to, err)
		}
	}
}

// checkFiles compares files with those in the image.
func (s *Status) checkFiles(files []File, limit int64, gone, changed Code) {
	for _, f := range files {
		data, err := plainfile.Read(f.Path, limit)
		switch {
		case err != nil:
			s.problem(gone, "put the file back; without it, this machine cannot be armed again", "%v", err)
		case digest(data) != f.SHA256:
			s.stale(changed, "%s has changed since it was packed", f.Path)
		}
	}
}

// checkConfig compares the configuration, and the files that it names, with those in the image. It returns the configuration, nil if it cannot
// be read.
func (s *Status) checkConfig() *config.File {
	r := s.Loaded
	s.checkFiles(r.Keys, maxConfig, KeyGone, KeyChanged)
	s.checkFiles(r.Programs, maxSiteProgram, SiteGone, SiteChanged)
	text, err := plainfile.Read(r.Config.Path, maxConfig)
	if err != nil {
		s.problem(ConfigGone, "put the file back; without it, this machine cannot be armed again", "%v", err)
		return nil
	}
	if digest(text) != r.Config.SHA256 {
		s.stale(ConfigChanged, "%s has changed since it was packed", r.Config.Path)
	}
	c, err := config.Parse(r.Config.Path, text)
	if err != nil {
		s.problem(ConfigGone, "correct it; until then, this machine cannot be armed again", "%v", err)
		return nil
	}
	absoluteKeys(r.Config.Path, c)
	return c
}

// checkWay compares the way of this machine to the targets with the one that was copied.
func (s *Status) checkWay(ctx context.Context, root string, c *config.File, ways Ways) way {
	w := wayOf(ctx, root, c, ways)
	s.Findings = append(s.Findings, w.findings(s.Loaded)...)
	// What was copied for another configuration says nothing, and neither does a search that failed.
	if ways == nil || w.unknown() || s.has(ConfigChanged) {
		return w
	}
	if now := w.words(); !slices.Equal(now, s.Loaded.Network) {
		s.stale(NetworkChanged, "the way to the targets has changed: the image has %s, and this machine has %s", shown(s.Loaded.Network), shown(now))
	}
	return w
}

// shown writes words that were copied from the network.
func shown(words []string) string {
	if len(words) == 0 {
		return "DHCP on all interfaces"
	}
	return strings.Join(words, " ")
}

// checkDrivers compares the drivers of this machine's devices with those in the image.
func (s *Status) checkDrivers(root string, c *config.File, w way) {
	sys := filepath.Join(root, "sys")
	for _, device := range devices(sys, c, w) {
		for _, module := range initrd.DeviceModules(sys, device) {
			name := initrd.CanonicalName(module)
			switch {
			case slices.Contains(s.Loaded.Modules, name):
			case slices.Contains(s.Loaded.Lacking, name):
				s.problem(DriverMissing, "see whether 'modprobe -n -S "+s.Loaded.Kernel.Release+" "+name+"' finds it; then "+rearm(s.Loaded),
					"the image has no driver %s, which drives %s: the capture kernel's modules do not have it", name, filepath.Dir(device))
			default:
				s.stale(DriverMissing, "the image has no driver %s, which drives %s", name, filepath.Dir(device))
			}
		}
	}
	if !slices.ContainsFunc(c.To, config.NeedsNetwork) || c.Network.Mode == "none" {
		return
	}
	if len(initrd.CardDevices(sys)) == 0 {
		s.note(NoCard, "name its driver under modules in "+s.Loaded.Config.Path+" if the capture kernel has a card", "this machine shows no network card")
	}
	if name := c.Network.Interface; name != "" && !hasInterface(sys, name) {
		s.problem(NoInterface, "correct interface under [network] in "+s.Loaded.Config.Path+"; 'ip link' shows what there is",
			"this machine has no interface %s", name)
	}
}

// hasInterface reports whether an interface has a name or a MAC address.
func hasInterface(sys, name string) bool {
	mac, err := net.ParseMAC(name)
	if err != nil {
		return !strings.Contains(name, "/") && hasDevice(filepath.Join(sys, "class/net", name))
	}
	for _, card := range initrd.CardDevices(sys) {
		address, _ := plainfile.Read(filepath.Join(sys, filepath.Dir(card), "address"), maxSmall) // one that has just gone has none
		if strings.TrimSpace(string(address)) == mac.String() {
			return true
		}
	}
	return false
}

// checkSysctls compares the settings of the configuration with those of the kernel.
func (s *Status) checkSysctls(root string, c *config.File) {
	for _, setting := range c.Arm.Sysctl {
		name, want, _ := strings.Cut(setting, "=")
		if got, err := readSysctl(root, name); err != nil || got != want {
			s.problem(SysctlDiffers, rearm(s.Loaded), "%s is %q, and the configuration wants %s", name, got, want)
		}
	}
	if v, err := readSysctl(root, "kernel.panic_on_oops"); err == nil && v == "0" {
		s.note(OopsNoPanic, `write sysctl = ["kernel.panic_on_oops=1"] under [arm] if a fault in the kernel shall give a dump`,
			"kernel.panic_on_oops is 0: the machine goes on after most faults of the kernel, without a dump")
	}
}

// checkBoot says what the next boot will do.
func (s *Status) checkBoot(root string) {
	if !hasSystemd(root) {
		return
	}
	for _, l := range loaders {
		if enabled(root, l.unit) {
			s.problem(OtherAtBoot, "systemctl disable "+l.unit, "%s (%s) loads its own image at the next boot", l.unit, l.what)
		}
	}
	if !enabled(root, armUnit) {
		s.note(NotArmedAtBoot, "install contrib/"+armUnit+" and enable it", "nothing arms this machine at the next boot")
	}
}
