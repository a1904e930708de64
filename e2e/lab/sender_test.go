package lab

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// This test uses the lab's copying initramfs in place of a sender's: it finds no disk, says
// so, and ends the machine.
func TestRunSender(t *testing.T) {
	k, err := GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := writeCaptureInitrd(t.Context(), k, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("to the end", func(t *testing.T) {
		var lines []string
		run, err := RunSender(t.Context(), Scenario{Kernel: "6.1"}, initrd, SenderOptions{
			OnLine: func(line string) { lines = append(lines, line) },
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{guestcfg.VmcoreSize, "no disk with serial"} {
			if !strings.Contains(run.CaptureConsole(), want) {
				t.Errorf("the capture kernel did not say %q; console ends:\n%s", want, tail(run.Console, 20))
			}
		}
		reported := strings.Join(lines, "\n")
		if want := regexp.MustCompile(`[\r\n]+`).ReplaceAllString(strings.Trim(run.Console, "\r\n"), "\n"); reported != want {
			t.Errorf("other lines were reported than the console has:\n%s\nconsole:\n%s", reported, want)
		}
	})
	t.Run("unplugged", func(t *testing.T) {
		ctx, unplug := context.WithCancel(t.Context())
		defer unplug()
		run, err := RunSender(ctx, Scenario{Kernel: "6.1"}, initrd, SenderOptions{
			OnLine: func(line string) {
				if strings.Contains(line, guestcfg.Crashing) {
					unplug()
				}
			},
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want %v", err, context.Canceled)
		}
		if run == nil || strings.Contains(run.Console, guestcfg.VmcoreSize) {
			t.Error("the machine went on without power, or left no console")
		}
	})
}

// Only a machine that died by itself is crashed again: a sender that said a word, or ended without one, is what a test asks for.
func TestMachineDied(t *testing.T) {
	const system = "lab: crashing\n[    5.1] Kernel panic - not syncing: sysrq triggered crash\n[    5.2] CPU: 0 PID: 1\n"
	for name, tt := range map[string]struct {
		console string
		want    bool
	}{
		"system kernel never panicked": {"[    0.1] Linux version\nlab: armed\n", true},
		"capture kernel said nothing":  {system, true},
		"capture kernel oopsed":        {system + "[    0.9] Oops: 0002 [#1]\r\n[    1.0] Kernel panic - not syncing: Fatal exception in interrupt\n", true},
		"sender spoke":                 {system + "[    0.9] warning\ncorehaul-send: loading modules\n", false},
		"the lab's init spoke":         {system + "[    4.8] lab: vmcore size=918228992\n", false},
		"sender ended":                 {system + "[    0.9] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n", false},
		"no sender":                    {system + "[    0.9] Kernel panic - not syncing: No working init found.\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (&Run{Console: tt.console}).machineDied(); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
		})
	}
}
