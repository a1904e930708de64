package dumpdir

import (
	"io"
	"time"
)

// ManifestVersion is the version of manifest.json that is written and the only one read.
const ManifestVersion = 1

// Manifest is manifest.json: what a dump is, for people and for the index. It is
// derived: where it and the journal disagree, the journal is right.
type Manifest struct {
	Version   int               `json:"version"`
	ID        string            `json:"id"`
	Host      string            `json:"host"`
	State     State             `json:"state"`
	Reason    string            `json:"reason,omitempty"`
	Release   string            `json:"release,omitempty"`
	Nodename  string            `json:"nodename,omitempty"`
	Machine   string            `json:"machine,omitempty"`
	BuildID   string            `json:"build_id,omitempty"`
	PanicLine string            `json:"panic_line,omitempty"`
	CrashTime *time.Time        `json:"crash_time,omitempty"`
	StartTime time.Time         `json:"start_time"`
	EndTime   *time.Time        `json:"end_time,omitempty"`
	Plan      *ManifestPlan     `json:"plan,omitempty"`
	Pages     PageCounts        `json:"pages"`
	Bytes     ByteCounts        `json:"bytes"`
	Encodings map[string]uint64 `json:"encodings,omitempty"` // pages by how they are stored: raw, zlib, lzo, snappy, zstd, zero
	SHA256    string            `json:"sha256,omitempty"`    // of vmcore
	Transport string            `json:"transport,omitempty"`
	Peer      string            `json:"peer,omitempty"`
	Sender    string            `json:"sender,omitempty"`
	Receiver  string            `json:"receiver,omitempty"`
}

// ManifestPlan is the plan in short.
type ManifestPlan struct {
	Level    uint8             `json:"level"`
	PageSize int               `json:"page_size"`
	MaxPFN   uint64            `json:"max_pfn"`
	NrCPUs   uint32            `json:"nr_cpus"`
	Chunks   uint64            `json:"chunks"`
	Classes  map[string]uint64 `json:"classes,omitempty"` // pages of RAM by kind, as the sender counted
	Hash     string            `json:"hash"`              // 16 hexadecimal digits
}

// PageCounts counts pages of the plan.
type PageCounts struct {
	Planned uint64 `json:"planned"`
	Present uint64 `json:"present"` // zero pages included
	Zero    uint64 `json:"zero"`
	Missing uint64 `json:"missing"`
}

// ByteCounts counts bytes.
type ByteCounts struct {
	VMCore int64 `json:"vmcore"` // length of the file
	Log    int64 `json:"log"`
	Raw    int64 `json:"raw"` // of the present pages, not compressed
}

// ParseManifest reads a manifest strictly: no unknown field, nothing behind it, no value out of
// range. Errors are a *DamageError or match ErrUnsupported.
func ParseManifest(r io.Reader) (*Manifest, error) { return nil, errNotYet }

// ValidID reports whether id can be a dump's: 16 to 64 characters of 0-9 and a-f.
func ValidID(id string) bool {
	if len(id) < 16 || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
