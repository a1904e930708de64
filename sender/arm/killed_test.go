package arm

import (
	"fmt"
	"testing"

	"github.com/corehaul/corehaul/sender/arm/kexec/kexectest"
	"github.com/corehaul/corehaul/sender/arm/reservation"
)

// killedMachine is a machine whose Arms are killed. loaded is the id of the image in its reserved memory, empty if there is none.
type killedMachine struct {
	root   string
	areas  []reservation.Area
	loaded string
}

func newKilledMachine(t *testing.T) *killedMachine {
	t.Helper()
	const base = 0x2f000000
	m := &killedMachine{root: machine(t, nil), areas: []reservation.Area{{Start: base, End: base + 0x2000}}}
	m.load(t, "")
	return m
}

// load is the system call.
func (m *killedMachine) load(t *testing.T, id string) {
	t.Helper()
	m.loaded = id
	put(t, m.root, "sys/kernel/kexec_crash_loaded", map[bool]string{false: "0\n", true: "1\n"}[id != ""])
	memory := make([]byte, 0x2000)
	if id != "" {
		copy(memory[0x100*len(id):], (&Record{ID: id}).mark())
	}
	kexectest.Core(t, m.root, map[uint64][]byte{m.areas[0].Start: memory})
}

// armSteps is how often an Arm changes what others see: it has settled what the one before has left, has written its record, has loaded its
// image, has made its record that of what is loaded, and has tidied up. Records are written whole or not at all.
const armSteps = 5

// arm does the first steps of an Arm, in the order of Arm and Plan.load.
func (m *killedMachine) arm(t *testing.T, id string, steps int) {
	t.Helper()
	r := &Record{ID: id}
	now, err := findLoaded(m.root, m.areas)
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []func() error{
		func() error { return now.settle(m.root, m.areas) },
		func() error { return r.write(m.root, armingFile) },
		func() error { m.load(t, id); return nil },
		func() error { r.Mark = r.findMark(m.root, m.areas); return r.write(m.root, armedFile) },
		func() error { return forget(m.root, armingFile) },
	} {
		if i < steps {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// check compares what the records say with what is loaded.
func (m *killedMachine) check(t *testing.T, after string) {
	t.Helper()
	l, err := findLoaded(m.root, m.areas)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	if l.record != nil {
		got = l.record.ID
	}
	if got != m.loaded || l.unsure {
		t.Errorf("%s: the records say that %q is loaded (unsure: %t), and %q is", after, got, l.unsure, m.loaded)
	}
}

// TestKilledArms: three Arms in a row, each killed after each of its steps, and the second or third of them after an image or after none. The
// records always tell which image is loaded. Between two steps an Arm changes nothing that others see, so these are all states that there
// are; the kills of real ones are in e2e/armkill_test.go.
func TestKilledArms(t *testing.T) {
	for first := range armSteps + 1 {
		for second := range armSteps + 1 {
			m := newKilledMachine(t)
			m.check(t, "nothing")
			m.arm(t, "A", first)
			m.check(t, fmt.Sprintf("one Arm of %d steps", first))
			m.arm(t, "BB", second)
			m.check(t, fmt.Sprintf("Arms of %d and %d steps", first, second))
			for third := range armSteps + 1 {
				m.arm(t, "CCC"+fmt.Sprint(third), third)
				m.check(t, fmt.Sprintf("Arms of %d and %d steps, and of up to %d", first, second, third))
			}
		}
	}
}
