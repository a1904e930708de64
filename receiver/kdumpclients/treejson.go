package kdumpclients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
)

const (
	stateName    = "tree.json"
	stateVersion = 1
)

// Limits of one host's tree.
const (
	maxDirs  = 256
	maxFiles = 512 // in all directories together
)

// hostState is tree.json.
type hostState struct {
	Version int                  `json:"version"`
	Next    uint64               `json:"next"` // number of the next file
	Dirs    map[string]*dirState `json:"dirs"` // by path; always has the root
	// Past has directories of earlier crashes whose paths belong to a later crash now. Clients do not see them.
	Past []*dirState `json:"past,omitempty"`
}

// dirState is a directory.
type dirState struct {
	Born  time.Time             `json:"born"`
	Used  time.Time             `json:"used"` // last activity
	Temp  bool                  `json:"temp,omitempty"`
	Peer  string                `json:"peer,omitempty"` // address of the last writer
	Files map[string]*fileState `json:"files,omitempty"`
	Dump  *dumpState            `json:"dump,omitempty"`  // the dump of the directory; nil: none yet
	Dumps int                   `json:"dumps,omitempty"` // number of earlier dumps of the directory
	Past  string                `json:"past,omitempty"`  // former path of a directory in hostState.Past
}

// dumpState is the dump that is made of a directory.
type dumpState struct {
	ID    string     `json:"id"`
	Log   uint64     `json:"log,omitempty"`   // number of the file with its log
	Image *fileState `json:"image,omitempty"` // the file with its pages
	// Sealed means that only other files may still be added.
	Sealed bool `json:"sealed,omitempty"`
}

// fileStatus is the state of a file.
type fileStatus string

const (
	fileArriving fileStatus = "arriving"
	fileWhole    fileStatus = "whole"
	fileBroken   fileStatus = "broken"
)

// fileState is a file in a directory.
type fileState struct {
	Num    uint64     `json:"num"` // names its bytes on disk
	Size   int64      `json:"size"`
	Mod    time.Time  `json:"mod"`
	Status fileStatus `json:"status"`
	Reason string     `json:"reason,omitempty"` // why it is broken

	Image *imageState `json:"image,omitempty"` // the dump in it; nil: a small file
	Kept  bool        `json:"kept,omitempty"`  // it is beside the dump of the directory
}

func newHostState() *hostState {
	now := time.Now().UTC()
	return &hostState{Version: stateVersion, Next: 1, Dirs: map[string]*dirState{"/": {Born: now, Used: now}}}
}

// errState says that tree.json is invalid.
var errState = errors.New("the tree of a host is damaged")

// maxStateBytes bounds the bytes read of our own files: a host has at most 512 files, an image at most 16,384 pieces.
const maxStateBytes = 64 << 20

// loadState reads tree.json in dir. If it is missing, the tree is empty.
func loadState(dir string) (*hostState, error) {
	name := filepath.Join(dir, stateName)
	b, err := plainfile.Read(name, maxStateBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return newHostState(), nil
	}
	if err != nil {
		return nil, err
	}
	s := new(hostState)
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(s); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errState, name, err)
	}
	if s.Version != stateVersion || s.Dirs["/"] == nil {
		return nil, fmt.Errorf("%w: %s: version %d, or no root", errState, name, s.Version)
	}
	return s, nil
}

// save writes tree.json in dir, durably.
func (s *hostState) save(dir string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return dumpdir.SaveFile(dumpdir.OS{}, dir, stateName, b)
}

// all yields the directories with their paths, past ones last.
func (s *hostState) all() iter.Seq2[string, *dirState] {
	return func(yield func(string, *dirState) bool) {
		for p, d := range s.Dirs {
			if !yield(p, d) {
				return
			}
		}
		for _, d := range s.Past {
			if d == nil {
				d = new(dirState) // null in tree.json; no path leads to it
			}
			if !yield(d.Past, d) {
				return
			}
		}
	}
}

// files counts the files of all directories.
func (s *hostState) files() (n int) {
	for _, d := range s.all() {
		n += len(d.Files)
	}
	return n
}
