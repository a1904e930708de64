package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/corehaul/corehaul/e2e/lab"
)

// Names of the dumps.
const (
	Idle = "idle-1g"
	Busy = "busy-4g"
)

// Dumps are the machines whose vmcores are sent.
var Dumps = []struct {
	Name     string
	Scenario lab.Scenario
}{
	{Idle, lab.Scenario{Kernel: "6.1", CPU: "qemu64", Kexec: "c"}},
	{Busy, lab.Scenario{Kernel: "6.1", CPU: "qemu64", Kexec: "c", Busy: true, MemMiB: 4096}},
}

// A makedumpfile is a build of makedumpfile.
type makedumpfile struct {
	argv    []string
	version string
	// can has the compressors that are enabled, as its -v names them.
	can map[string]bool
}

// askMakedumpfile asks a build what it can. A build without a compressor takes its flag and stores plain pages.
func askMakedumpfile(ctx context.Context, argv []string) (*makedumpfile, error) {
	out, err := exec.CommandContext(ctx, argv[0], append(argv[1:len(argv):len(argv)], "-v")...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s -v: %w: %s", strings.Join(argv, " "), err, out)
	}
	m := &makedumpfile{argv: argv, can: map[string]bool{}}
	m.version, m.can = parseVersion(string(out))
	return m, nil
}

// parseVersion reads what `makedumpfile -v` prints.
func parseVersion(text string) (version string, can map[string]bool) {
	can = map[string]bool{}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) >= 3 && words[1] == "version":
			version = words[2]
		case len(words) == 2 && words[1] == "enabled":
			can[words[0]] = true
		}
	}
	return version, can
}

// programs are the command lines of all that runs, and the keys.
type programs struct {
	send, serve string
	debian      *makedumpfile
	own         *makedumpfile // of $MAKEDUMPFILE; may be nil
	dumps       map[string]string
	keys        *keys
}

// findPrograms looks for everything. bin is the directory of corehaul's programs.
func findPrograms(ctx context.Context, bin, dir string) (*programs, error) {
	p := &programs{send: filepath.Join(bin, "corehaul-send"), serve: filepath.Join(bin, "corehaul"), dumps: map[string]string{}}
	for _, name := range []string{p.send, p.serve} {
		if _, err := os.Stat(name); err != nil {
			return nil, fmt.Errorf("run make build first: %w", err)
		}
	}
	for _, d := range Dumps {
		c, err := lab.CaptureELF(ctx, d.Scenario)
		if err != nil {
			return nil, err
		}
		p.dumps[d.Name] = c.ELF
	}
	k, err := lab.GetKernel(ctx, Dumps[0].Scenario.Kernel)
	if err != nil {
		return nil, err
	}
	argv, err := k.MakedumpfileCommand(ctx)
	if err == nil {
		p.debian, err = askMakedumpfile(ctx, argv)
	}
	if own := os.Getenv("MAKEDUMPFILE"); own != "" && err == nil {
		p.own, err = askMakedumpfile(ctx, []string{own})
	}
	if err == nil {
		p.keys, err = makeKeys(ctx, p, filepath.Join(dir, "keys"))
	}
	return p, err
}

// makedumpfileWith is the build for a compressor: Debian's if that has it.
func (p *programs) makedumpfileWith(compressor string) (*makedumpfile, error) {
	for _, m := range []*makedumpfile{p.debian, p.own} {
		if m != nil && m.can[compressor] {
			return m, nil
		}
	}
	return nil, fmt.Errorf("no makedumpfile with %s: name a build that has it in $MAKEDUMPFILE: %w", compressor, errors.ErrUnsupported)
}
