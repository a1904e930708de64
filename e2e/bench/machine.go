package bench

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Machine is where a report was made, and with which programs. Versions are in the words of the programs.
type Machine struct {
	Date         time.Time `json:"date"`
	CPU          string    `json:"cpu"`
	Cores        int       `json:"cores"`
	Memory       uint64    `json:"memory_bytes"`
	Kernel       string    `json:"kernel"`
	Corehaul     string    `json:"corehaul"`
	Makedumpfile string    `json:"makedumpfile"`
	// OwnMakedumpfile is that of $MAKEDUMPFILE.
	OwnMakedumpfile string `json:"own_makedumpfile,omitempty"`
	SSH             string `json:"ssh"`
}

func machineFacts(ctx context.Context, p *programs) Machine {
	m := Machine{
		Date: time.Now().UTC().Truncate(time.Second), CPU: cpuModel(), Cores: runtime.NumCPU(), Makedumpfile: p.debian.version,
		Corehaul: firstLine(ctx, p.serve, "version"), SSH: firstLine(ctx, "ssh", "-V"),
	}
	if p.own != nil {
		m.OwnMakedumpfile = p.own.version
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = info.Totalram * uint64(info.Unit)
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}

// firstLine is what a program says of itself, or nothing.
func firstLine(ctx context.Context, name string, args ...string) string {
	out, _ := exec.CommandContext(ctx, name, args...).CombinedOutput() // its words tell
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// cpuModel is the processor in the kernel's words.
func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo") // "unknown" without it
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name\t: "); ok {
			return strings.TrimSpace(name)
		}
	}
	return "unknown"
}
