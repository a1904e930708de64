package arm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/corehaul/corehaul/internal/bytesize"
	"github.com/corehaul/corehaul/sender/arm/kexec"
	"github.com/corehaul/corehaul/sender/arm/reservation"
)

// A NotReservedError says that the running kernel has no memory for a capture kernel.
type NotReservedError struct {
	// Why says what the command line of the running kernel has.
	Why string
	// Boot is where to change that, and Size what to reserve, in bytes.
	Boot reservation.Boot
	Size uint64
}

// Error says why.
func (e *NotReservedError) Error() string {
	return "no memory is reserved for a capture kernel: " + e.Why
}

// Hints says what to write.
func (e *NotReservedError) Hints() []string {
	if e.Boot.CanWrite() {
		return append([]string{"'corehaul-send arm --write' does it, or by hand:"}, e.Boot.Steps(e.Size)...)
	}
	return e.Boot.Steps(e.Size)
}

// An OtherError says that somebody else has loaded a capture kernel.
type OtherError struct{ Who string }

// Error names who it may be.
func (e *OtherError) Error() string {
	return "a capture kernel is loaded that this program did not load: " + e.Who
}

// Hints says what to do.
func (e *OtherError) Hints() []string {
	return []string{
		"stop that service for good (systemctl disable --now NAME), or take its place until the next boot with --replace",
		"if that is a kdump with corehaul-send in its image (docs/kdump-admin.md), leave it alone, and ask kdump for its status",
	}
}

// Reserved returns what the running kernel has reserved, or a *NotReservedError.
func Reserved(root string) (*reservation.State, error) {
	state, err := reservation.Read(root)
	if err != nil {
		return nil, err
	}
	if state.Size == 0 {
		return nil, notReserved(root, state)
	}
	return state, nil
}

func notReserved(root string, state *reservation.State) *NotReservedError {
	return &NotReservedError{Why: state.Missing(), Boot: reservation.FindBoot(root), Size: reservation.Recommend(state.Memory, 0)}
}

// Arm packs and loads the image. It refuses to take the place of one that somebody else has loaded, unless Options.Replace
// is set. Errors are, among others, *NotReservedError, *OtherError, kexec.ErrLocked and *kexec.LoadError.
func Arm(ctx context.Context, o Options) (*Plan, error) {
	state, err := Reserved(o.root())
	if err != nil {
		return nil, err
	}
	unlock, err := kexec.Lock(o.root())
	if err != nil {
		return nil, err
	}
	defer unlock()
	now, err := findLoaded(o.root(), state.Areas)
	if err != nil {
		return nil, err
	}
	if now.any && now.record == nil && !now.unsure && !o.Replace {
		return nil, &OtherError{Who: otherLoader(o.root())}
	}
	p, err := Prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	defer p.Close() // the report and the record stay
	if err := now.settle(o.root(), state.Areas); err != nil {
		return nil, err
	}
	if err := p.load(ctx, o.root(), state); err != nil {
		return nil, err
	}
	return p, setSysctls(o.root(), p.config.Arm.Sysctl)
}

// load loads the image and writes the record. Whenever it is killed, either record or both are there, and findLoaded tells
// which is right.
func (p *Plan) load(ctx context.Context, root string, state *reservation.State) error {
	r := &p.Record
	if err := r.write(root, armingFile); err != nil {
		return err
	}
	if err := kexec.Load(ctx, p.kernel, p.image, r.Cmdline); err != nil {
		return p.failed(root, state, err)
	}
	r.Mark = r.findMark(root, state.Areas)
	if err := r.write(root, armedFile); err != nil {
		return err
	}
	return forget(root, armingFile)
}

// failed adds to the error of a load what is loaded now: to load a capture kernel, the kernel frees the old one first.
func (p *Plan) failed(root string, state *reservation.State, err error) error {
	gone := []string{armingFile}
	any, lerr := kexec.Loaded(root)
	if lerr == nil && !any {
		gone = append(gone, armedFile)
		err = fmt.Errorf("%w (needed: about %s, reserved: %s); no capture kernel is loaded now", err, bytesize.Format(p.Record.Needs), bytesize.Format(state.Size))
	}
	return errors.Join(err, lerr, forget(root, gone...))
}

// setSysctls makes the settings NAME=NUMBER.
func setSysctls(root string, settings []string) error {
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		if err := os.WriteFile(sysctlPath(root, name), []byte(value+"\n"), 0); err != nil {
			return fmt.Errorf("armed, but sysctl %s: %w", name, err)
		}
	}
	return nil
}

func sysctlPath(root, name string) string {
	return filepath.Join(root, "proc/sys", strings.ReplaceAll(name, ".", "/"))
}

// ErrNotArmed means that there is nothing to disarm.
var ErrNotArmed = errors.New("not armed: no capture kernel is loaded")

// Disarm unloads the image and removes the records. It unloads what somebody else has loaded only if replace is set. It fails
// with ErrNotArmed if nothing is loaded, after it has removed what an Arm may have left, and with reservation.ErrNoKexec on a kernel that
// can load nothing.
func Disarm(root string, replace bool) error {
	state, err := reservation.Read(root)
	if err != nil {
		return err
	}
	unlock, err := kexec.Lock(root)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := findLoaded(root, state.Areas)
	if err != nil {
		return err
	}
	if now.any && now.record == nil && !now.unsure && !replace {
		return &OtherError{Who: otherLoader(root)}
	}
	if now.any {
		if err := kexec.Unload(); err != nil {
			return err
		}
	}
	// An Arm that was killed may have left an unfinished record.
	if err := os.RemoveAll(filepath.Join(root, Dir)); err != nil {
		return err
	}
	if !now.any {
		return ErrNotArmed
	}
	return nil
}
