package arm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/sender/arm/estimate"
	"github.com/corehaul/corehaul/sender/arm/kexec"
	"github.com/corehaul/corehaul/sender/arm/reservation"
)

// Dir has the record of what is loaded. It is not that of a receiver's service (/run/corehaul), which systemd removes when the
// service stops.
const Dir = "run/corehaul-send"

// Names in Dir: of what is loaded, and of what an Arm is about to load.
const (
	armedFile  = "armed.json"
	armingFile = "arming.json"
)

const maxRecord = 1 << 20

// A File is a file as it was when the image was packed.
type File struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// A Kernel is the file of a capture kernel.
type Kernel struct {
	File
	// Release is as in uname -r, empty if the file does not say.
	Release string `json:"release"`
	// Memory is what it needs to start, in bytes, 0 if the file does not say. See kexec.Image.
	Memory uint64 `json:"memory"`
	// Chosen means that the configuration names it.
	Chosen bool `json:"chosen"`
}

// A Record says what was loaded. It is a file in Dir, and part of the document of Look.
type Record struct {
	// ID is in the command line of the capture kernel.
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	// Tool is the program that packed it, with its version. Program is the file that is /init in the image.
	Tool    string `json:"tool"`
	Program File   `json:"program"`
	Config  File   `json:"config"`
	// Keys are the files that the configuration names.
	Keys []File `json:"keys"`
	// Programs are the programs of the configuration, their interpreters, and the shell.
	Programs []File   `json:"programs"`
	To       []string `json:"to"`
	Kernel   Kernel   `json:"kernel"`
	Cmdline  string   `json:"cmdline"`
	// Network are the words of Cmdline that were copied from the network of the running system.
	Network []string `json:"network"`
	// Devices are the devices, below /sys, whose drivers were packed.
	Devices []string `json:"devices"`
	// Modules are those in the image and those that its kernel has built in, as far as they were wanted.
	Modules []string `json:"modules"`
	// Lacking are modules that this machine needs and the capture kernel does not have.
	Lacking []string `json:"lacking"`
	// Packed is the size of the image, and Unpacked that of its files, in bytes. Needs is an estimate of all that the
	// capture kernel needs, and Parts are what it is made of.
	Packed   uint64          `json:"packed"`
	Unpacked uint64          `json:"unpacked"`
	Needs    uint64          `json:"needs"`
	Parts    []estimate.Part `json:"parts"`
	// Mark is the physical address of the id in the reserved memory, 0 if the kernel does not show that memory.
	Mark uint64 `json:"mark"`
}

// mark is the text that the capture kernel's command line has of this record.
func (r *Record) mark() string { return "corehaul.image=" + r.ID }

// readRecord reads a record. It returns nil if there is none.
func readRecord(root, name string) (*Record, error) {
	path := filepath.Join(root, Dir, name)
	text, err := plainfile.Read(path, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &Record{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// write writes a record, whole or not at all.
func (r *Record) write(root, name string) error {
	dir := filepath.Join(root, Dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := plainfile.CreatePending(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Abort()
	enc := json.NewEncoder(f)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return err
	}
	return f.Commit()
}

// forget removes records, and Dir if it is empty then.
func forget(root string, names ...string) error {
	dir := filepath.Join(root, Dir)
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	_ = os.Remove(dir) // it may have more
	return nil
}

// A certainty is how sure it is that a record describes the loaded image.
type certainty int

const (
	no certainty = iota
	unknown
	yes
)

// isLoaded looks for the record's id in the reserved memory.
func (r *Record) isLoaded(root string, areas []reservation.Area) certainty {
	if r.Mark != 0 {
		areas = []reservation.Area{{Start: r.Mark, End: r.Mark + uint64(len(r.mark()))}}
	}
	seen := false
	for _, a := range areas {
		_, ok, err := kexec.Find(root, a.Start, a.End, []byte(r.mark()))
		if ok {
			return yes
		}
		seen = seen || err == nil
	}
	// Without a mark, arm itself did not find it, so that nothing follows from not finding it now.
	if r.Mark != 0 && seen {
		return no
	}
	return unknown
}

// findMark returns the address of the record's id in the reserved memory, 0 if that does not show it.
func (r *Record) findMark(root string, areas []reservation.Area) uint64 {
	for _, a := range areas {
		if at, ok, _ := kexec.Find(root, a.Start, a.End, []byte(r.mark())); ok { // the kernel may hide it
			return at
		}
	}
	return 0
}
