package main

import (
	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/sender/arm"
	"github.com/corehaul/corehaul/sender/initrd"
)

// The results of armedDoc.
const (
	resultArmed     = "armed"
	resultWouldArm  = "would-arm" // --dry-run
	resultUnchanged = "unchanged" // --if-changed: there is nothing to do
	resultWritten   = "written"   // --write: reboot, then arm
	resultReserved  = "reserved"  // --write: memory is reserved already
	resultDisarmed  = "disarmed"
	resultEmbedded  = "embedded" // the image of kdump has it
)

// armedDoc is what "arm --json", "disarm --json" and "embed --json" print. It may get new fields; no field changes or goes.
type armedDoc struct {
	Result   string        `json:"result"`
	Image    *arm.Record   `json:"image,omitempty"`    // what is, or would be, loaded
	Findings []arm.Finding `json:"findings,omitempty"` // what may be wrong with it
	Word     string        `json:"word,omitempty"`     // with "written": what was added to the kernel's command line
	Loader   string        `json:"loader,omitempty"`   // with "written": the boot loader whose configuration has it
}

// packedDoc is what "initrd --json" prints. It may get new fields; no field changes or goes.
type packedDoc struct {
	Output     string         `json:"output"`  // the file
	Modules    []packedModule `json:"modules"` // in the order in which they are loaded
	Builtin    []string       `json:"builtin"` // wanted modules that are built into the kernel
	Network    []string       `json:"network"` // drivers of network cards in the image, or if it has none, in the kernel
	Mountable  []string       `json:"mountable"`
	NoFirmware []string       `json:"no_firmware"` // modules whose firmware was not found
	Missing    []string       `json:"missing"`
	Files      int            `json:"files"`
	Packed     int64          `json:"packed"`
	Unpacked   int64          `json:"unpacked"`
	To         []string       `json:"to"`
}

type packedModule struct {
	Name   string `json:"name"`
	Params string `json:"params"`
}

func describePacked(rep *initrd.Report, output string) packedDoc {
	list := func(l []string) []string { return append([]string{}, l...) }
	d := packedDoc{
		Output: output, Modules: []packedModule{}, Builtin: list(rep.Builtin), Network: list(rep.Network), Mountable: list(rep.Mountable),
		NoFirmware: list(rep.NoFirmware), Missing: list(rep.Missing), Files: rep.Files, Packed: rep.Packed, Unpacked: rep.Unpacked, To: list(rep.To),
	}
	for _, m := range rep.Modules {
		d.Modules = append(d.Modules, packedModule{m.Name, m.Params})
	}
	return d
}

// versionDoc is what "version --json" prints.
type versionDoc struct {
	Version string `json:"version"`
}

// say prints a document, or if JSON was not asked for, does what text does.
func say(stdio cli.Stdio, asJSON bool, doc any, text func() error) error {
	if asJSON {
		return cli.JSON(stdio.Out, doc)
	}
	return text()
}
