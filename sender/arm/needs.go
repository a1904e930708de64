package arm

import (
	"path/filepath"

	"github.com/corehaul/corehaul/sender/arm/estimate"
	"github.com/corehaul/corehaul/sender/arm/kexec"
	"github.com/corehaul/corehaul/sender/arm/reservation"
	"github.com/corehaul/corehaul/sender/initrd"
)

// setNeeds estimates what the capture kernel needs.
func (p *Plan) setNeeds(root string, image kexec.Image) error {
	in := estimate.Input{
		Kernel: image.Memory, Unpacks: image.Unpacks, Packed: p.Record.Packed, Unpacked: p.Record.Unpacked,
		Loaded: uint64(max(0, p.Report.Loaded)), Cards: len(initrd.CardDevices(filepath.Join(root, "sys"))),
	}
	if in.Kernel == 0 {
		st, err := p.kernel.Stat()
		if err != nil {
			return err
		}
		in.Kernel = 4 * uint64(max(0, st.Size())) // a kernel unpacks to about that
	}
	// A kernel without kexec may be asked too. Only machines with much memory need more for it.
	if state, err := reservation.Read(root); err == nil {
		in.Memory = state.Memory
	}
	e := estimate.Of(in)
	p.Record.Needs, p.Record.Parts = e.Size, e.Parts
	return nil
}
