package lab

import (
	"encoding/json"
	"slices"
	"testing"
)

func TestScenarioName(t *testing.T) {
	for _, tt := range []struct {
		scenario Scenario
		want     string
	}{
		{Scenario{Kernel: "6.1"}, "6.1-qemu64-1024M-c-idle"},
		{Scenario{Kernel: "6.1", CPU: "max", Kexec: "s", Busy: true, MemMiB: 2048}, "6.1-max-2048M-s-busy"},
		{Scenario{Kernel: "6.12-arm64"}, "6.12-arm64-cortex-a57-1024M-c-idle"},
		{Scenario{Kernel: "5.10", Crash: "init-exit"}, "5.10-qemu64-1024M-c-idle-init-exit"},
		{Scenario{Kernel: "6.1", CrashkernelMiB: 192}, "6.1-qemu64-1024M-c-idle"},
		{Scenario{Kernel: "6.1", CrashkernelMiB: 256}, "6.1-qemu64-1024M-c-idle-crashkernel256M"},
		{Scenario{Kernel: "6.1", MemMiB: 65536}, "6.1-qemu64-65536M-c-idle"},
		{Scenario{Kernel: "6.1", Crash: "bug", Nodename: "other", CrashCPU: 1}, "6.1-qemu64-1024M-c-idle-bug-other-cpu1"},
	} {
		if got := tt.scenario.Name(); got != tt.want {
			t.Errorf("%+v is named %s, want %s", tt.scenario, got, tt.want)
		}
	}
}

// TestHashesStay holds what hashes are made of: a new field of Scenario may not make the lab capture everything again.
func TestHashesStay(t *testing.T) {
	b, err := json.Marshal(Scenario{Kernel: "6.1"}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"Kernel":"6.1","CPU":"qemu64","MemMiB":1024,"CrashkernelMiB":192,"Kexec":"c","Busy":false,"Crash":"sysrq","Append":""}`
	if string(b) != want {
		t.Errorf("a scenario is hashed as %s, want %s", b, want)
	}
}

func TestHashTellsScenariosApart(t *testing.T) {
	s := Scenario{Kernel: "6.1"}
	same := s.withDefaults()
	if s.hash("6.1.0-1") != same.hash("6.1.0-1") {
		t.Error("spelling out the defaults changes the hash")
	}
	other := s
	other.Append = "nokaslr"
	if s.hash("6.1.0-1") == other.hash("6.1.0-1") {
		t.Error("another command line has the same hash")
	}
	if s.hash("6.1.0-1") == s.hash("6.1.0-2") {
		t.Error("another release has the same hash")
	}
}

func TestMatrixHasNoDoubles(t *testing.T) {
	var names []string
	kernels := map[string]bool{}
	for _, s := range Matrix() {
		if slices.Contains(names, s.Name()) {
			t.Errorf("%s is in the matrix twice", s.Name())
		}
		names = append(names, s.Name())
		kernels[s.Kernel] = true
	}
	for _, s := range slices.Concat(Panics(), Rebuilds()) {
		kernels[s.Kernel] = true
	}
	for _, k := range KernelNames() {
		if !kernels[k] {
			t.Errorf("kernel %s is neither in the matrix nor among the panics", k)
		}
	}
}

func TestCompareReleases(t *testing.T) {
	sorted := []string{"5.10.0-32-cloud-amd64", "6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "6.12.94+deb13-cloud-amd64", "6.12.117+deb13-cloud-amd64"}
	if !slices.IsSortedFunc(sorted, compareReleases) {
		t.Errorf("%q counts as unsorted", sorted)
	}
}
