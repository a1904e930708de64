package triage

import (
	"cmp"
	"encoding/hex"
	"slices"
)

// Module is a module of the kernel.
type Module struct {
	Name       string   `json:"name"`
	Module     string   `json:"module"`     // address of its struct module, hexadecimal
	Base       string   `json:"base"`       // start of its code, hexadecimal
	Size       uint64   `json:"size_bytes"` // without what is for its initialization alone
	State      string   `json:"state"`      // as /proc/modules has it: Live, Loading, Unloading
	Taints     string   `json:"taints,omitempty"`
	Version    string   `json:"version,omitempty"`
	SrcVersion string   `json:"srcversion,omitempty"`
	BuildID    string   `json:"build_id,omitempty"`
	References int      `json:"references"`
	UsedBy     []string `json:"used_by,omitempty"`
}

// Modules lists the modules by address. It is empty for a kernel without modules, and nil if they cannot be read. Unread says why, and
// what a list lacks.
func (m *Memory) Modules() (list []Module) {
	if m.modules == nil {
		return nil
	}
	list = []Module{}
	for _, x := range m.modules.All() {
		list = append(list, Module{
			Name: x.Name, Module: hexAddr(x.Addr), Base: hexAddr(x.Base()), Size: x.Size(), State: x.State.String(), Taints: x.Taints, Version: x.Version,
			SrcVersion: x.SrcVersion, BuildID: hex.EncodeToString(x.BuildID), References: x.References, UsedBy: x.UsedBy,
		})
	}
	slices.SortFunc(list, func(a, b Module) int { return cmp.Compare(a.Base, b.Base) })
	return list
}
