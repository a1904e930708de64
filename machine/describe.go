package machine

import (
	"cmp"
	"strings"
	"time"

	"github.com/corehaul/corehaul/vmcore"
)

// Description is what a dump file says about itself and its machine. "corehaul show --json" prints it.
type Description struct {
	Path       string    `json:"path"`
	Format     string    `json:"format"`
	Inner      string    `json:"inner,omitempty"` // format inside a flattened file
	Machine    string    `json:"machine"`
	Release    string    `json:"release,omitempty"`
	Nodename   string    `json:"nodename,omitempty"`
	BuildID    string    `json:"build_id,omitempty"`
	PageSize   int       `json:"page_size"`
	MaxPFN     uint64    `json:"max_pfn"`
	RAMBytes   uint64    `json:"ram_bytes"`
	Pages      uint64    `json:"pages"`
	CPUs       int       `json:"cpus"`
	Erased     []string  `json:"erased,omitempty"` // lines of the ERASEINFO note of makedumpfile
	DumpLevel  *int      `json:"dump_level,omitempty"`
	Incomplete bool      `json:"incomplete"`
	CrashTime  time.Time `json:"crash_time,omitzero"`
	Warnings   []string  `json:"warnings,omitempty"`
}

// Describe describes the file at path, which is open as img. It counts the pages, and returns an error if it cannot.
func Describe(path string, img vmcore.Image) (*Description, error) {
	info := img.Info()
	k, err := Kernel(img, info)
	if err != nil {
		k = nil // then memory adds no facts
	}
	uts := Utsname(info, k)
	f := &Description{
		Path: path, Format: info.Format, Machine: uts.Machine, Release: uts.Release, Nodename: uts.Nodename,
		PageSize: info.PageSize, MaxPFN: uint64(info.MaxPFN), CPUs: cmp.Or(info.NrCPUs, len(info.CPUs)), Incomplete: info.Incomplete, Warnings: info.Warnings,
		Erased: info.Erased(),
	}
	if f.Machine == "" { // not an architecture that kdump supports
		f.Machine = strings.ToLower(strings.TrimPrefix(info.Machine.String(), "EM_"))
	}
	if info.Inner != info.Format {
		f.Inner = info.Inner
	}
	if info.DumpLevel >= 0 {
		f.DumpLevel = &info.DumpLevel
	}
	f.BuildID, _ = info.VMCOREINFO.String("BUILD-ID")
	f.CrashTime, _ = info.VMCOREINFO.CrashTime()
	for _, r := range img.RAM() {
		f.RAMBytes += r.Len()
	}
	for e, err := range img.Pages() {
		if err != nil {
			return nil, err
		}
		f.Pages += e.Count
	}
	return f, nil
}
