package groups

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
)

// Name and limits of the file.
const (
	FileName     = "groups.json"
	stateVersion = 2        // 1 has no Resolved.Again
	maxState     = 64 << 20 // bytes
)

// ErrState says that the state of groups cannot be read. It is never overwritten then.
var ErrState = errors.New("the state of groups cannot be read")

// Read reads the state in a directory. A missing file is an empty state. Any other error matches ErrState, and the state is empty.
func Read(dir string) (*State, error) {
	path := filepath.Join(dir, FileName)
	text, err := plainfile.Read(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return &State{Version: stateVersion}, nil
	}
	st := &State{}
	if err == nil {
		st, err = parseState(text)
	}
	if err != nil {
		return &State{Version: stateVersion}, fmt.Errorf("%w: %s: %w", ErrState, path, err)
	}
	return st, nil
}

// parseState reads the text of the file. It refuses members that it does not know, because the next change would drop them.
func parseState(text []byte) (*State, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if head.Version > stateVersion {
		return nil, fmt.Errorf("it has version %d, and this program knows up to %d", head.Version, stateVersion)
	}
	st := &State{}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(st)
	if err == nil && head.Version < 1 {
		err = errors.New("it has no version")
	}
	if err == nil {
		err = st.check()
	}
	if err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	return st, nil
}

// Update changes the state in a directory, which it makes if it is missing. No other Update runs meanwhile, in any process. The new state
// is durable on return. If the old one cannot be read, the error matches ErrState. After an error, the old state is there.
func Update(dir string, change func(*State) error) error {
	if err := makeStateDir(dir); err != nil {
		return err
	}
	lock, err := lockState(dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // nothing was written to it
	st, err := Read(dir)
	if err != nil {
		return err
	}
	if err := change(st); err != nil {
		return err
	}
	st.Version = stateVersion
	text, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		return err
	}
	if len(text) > maxState {
		return fmt.Errorf("%s would have more than %d bytes; take back what is no longer needed: 'corehaul group note --clear', 'group ticket --clear', 'group reopen'", FileName, maxState)
	}
	if err := dumpdir.SaveFile(dumpdir.OS{}, dir, FileName, append(text, '\n')); err != nil {
		return err
	}
	return giveToOwner(filepath.Join(dir, FileName), filepath.Dir(dir))
}

// makeStateDir makes the directory. A server that runs as the owner of the data must be able to write there too.
func makeStateDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := (dumpdir.OS{}).MkdirAll(dir); err != nil {
		return err
	}
	return giveToOwner(dir, filepath.Dir(dir))
}

// giveToOwner gives a file or directory that root has made to the owner of the data, as whom the server runs.
func giveToOwner(path, data string) error {
	info, err := os.Stat(data)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
		return os.Lchown(path, int(st.Uid), int(st.Gid))
	}
	return nil
}

// lockState waits for flock(2) on the directory, which the holder of the lock keeps open.
func lockState(dir string) (io.Closer, error) {
	d, err := plainfile.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), d.Close())
	}
	return d, nil
}
