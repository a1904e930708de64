package triage

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/corehaul/corehaul/debuginfo/symbolfile"
	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/kernel/generated"
	"github.com/corehaul/corehaul/kernel/kallsyms"
	"github.com/corehaul/corehaul/kernel/modules"
	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/kernel/percpu"
	"github.com/corehaul/corehaul/kernel/tasks"
	"github.com/corehaul/corehaul/kernel/types"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/machine"
	"github.com/corehaul/corehaul/vmcore"
)

// Memory is the memory of a crashed machine, with what its kernel says of itself. What cannot be read is missing, and Unread
// says why. It belongs to one goroutine.
type Memory struct {
	img      vmcore.Image
	k        *kernel.Kernel
	symbols  *kallsyms.Table
	types    *types.Types
	modules  *modules.List
	code     *generated.List
	areas    *percpu.Areas
	tasks    *tasks.Reader
	unwinder *unwind.Unwinder
	list     func() []tasks.Task
	said     func() (said *oops.Report, read bool) // see logOf
	notes    func() notes
	frames   int // of all stacks that were walked
	unread   []string

	findDebug func(DebugFile) (*symbolfile.File, error) // see UseDebugFiles
	debug     map[string]*symbolfile.File               // by modules; nil for those that are not there
}

// Open reads the tables of the kernel in img: about 15 MiB of memory. An unknown kernel is no error.
func Open(img vmcore.Image) *Memory {
	m := &Memory{img: img}
	m.list = sync.OnceValue(m.readTasks)
	m.said = sync.OnceValues(m.readLog)
	m.notes = sync.OnceValue(m.readNotes)
	m.part("the kernel's memory", func() (err error) {
		m.k, err = machine.Kernel(img, img.Info())
		return err
	})
	if m.k == nil {
		return m
	}
	if !m.k.Verified() { // translations may be wrong, or there are none
		for _, why := range m.k.Warnings() {
			m.cannot("the kernel's memory", errors.New(why))
		}
	}
	if !m.k.Supported() {
		return m
	}
	m.part("the symbol table", func() (err error) {
		m.symbols, err = kallsyms.Load(m.k)
		return err
	})
	if m.symbols == nil {
		return m
	}
	m.part("the types", func() (err error) {
		m.types, err = types.Load(m.k, m.symbols)
		return err
	})
	if m.types != nil {
		m.loadLists()
	}
	m.part("the stacks", func() (err error) {
		m.unwinder, err = unwind.New(m.k, m.symbols, m.stackSources())
		return err
	})
	return m
}

// stackSources returns what the walks of stacks need and memory has.
func (m *Memory) stackSources() (from unwind.Sources) {
	if m.modules != nil {
		from.Modules = m.modules
	}
	if m.code != nil {
		from.Generated = m.code
	}
	if m.tasks == nil {
		return from
	}
	m.part("the returns that tracers follow", func() error {
		returns, err := m.tasks.Returns()
		if err == nil {
			from.Returns = returns
		}
		return err
	})
	return from
}

// loadLists prepares what needs the kernel's types.
func (m *Memory) loadLists() {
	m.part("the modules", func() (err error) {
		m.modules, err = modules.Load(m.k, m.symbols, m.types)
		return err
	})
	m.part("the code made at run time", func() (err error) {
		m.code, err = generated.Load(m.k, m.symbols, m.types)
		return err
	})
	m.part("the per-CPU areas", func() (err error) {
		m.areas, err = percpu.Load(m.k, m.symbols)
		return err
	})
	m.part("the tasks", func() (err error) {
		m.tasks, err = tasks.New(m.k, m.symbols, m.types, m.areas)
		return err
	})
}

// Unread returns what could not be read so far, and why.
func (m *Memory) Unread() []string { return m.unread }

// maxUnread limits the lines of Unread: damage can be everywhere. The last one says that there would be more.
const maxUnread = 64

// part reads a part of memory, and notes why it cannot. A bug in the code that reads it counts as an error of the dump.
func (m *Memory) part(what string, read func() error) {
	defer func() {
		if p := recover(); p != nil {
			m.cannot(what, fmt.Errorf("internal error: %v\n%s", p, debug.Stack()))
		}
	}()
	if err := read(); err != nil {
		m.cannot(what, err)
	}
}

func (m *Memory) cannot(what string, err error) {
	for line := range strings.Lines(err.Error()) {
		switch n := len(m.unread); {
		case n < maxUnread-1:
			m.unread = append(m.unread, what+": "+strings.TrimSpace(line))
		case n < maxUnread:
			m.unread = append(m.unread, "more that is not listed")
		}
	}
}
