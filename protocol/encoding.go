package protocol

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/zeebo/xxh3"
)

// Encoding is how the data pages of a chunk are coded.
type Encoding uint8

// Encodings. Numbers and names are never reused.
const (
	// EncodingNone: raw pages, one after the other.
	EncodingNone Encoding = 0
	// EncodingSnappyPage: page records, each a raw snappy block, as kdump-compressed stores them.
	EncodingSnappyPage Encoding = 1
	// EncodingZstdPage: page records, each a zstd frame, as kdump-compressed stores them.
	EncodingZstdPage Encoding = 2
	// EncodingLZ4Block: all data pages as one lz4 block (no frame header).
	EncodingLZ4Block Encoding = 3
	// EncodingZstdBlock: all data pages as one zstd frame.
	EncodingZstdBlock Encoding = 4
)

var encodingNames = [...]string{"none", "snappy-page", "zstd-page", "lz4-block", "zstd-block"}

// Known reports whether e is an encoding of this version.
func (e Encoding) Known() bool { return int(e) < len(encodingNames) }

// Pages reports whether a chunk in encoding e carries one record for each data page.
func (e Encoding) Pages() bool { return e == EncodingSnappyPage || e == EncodingZstdPage }

// Block reports whether a chunk in encoding e carries all data pages as one compressed block.
func (e Encoding) Block() bool { return e == EncodingLZ4Block || e == EncodingZstdBlock }

// String returns the name of e on the wire.
func (e Encoding) String() string {
	if e.Known() {
		return encodingNames[e]
	}
	return fmt.Sprintf("encoding %d", uint8(e))
}

// ParseEncoding returns the encoding with the given name.
func ParseEncoding(name string) (Encoding, error) {
	if i := slices.Index(encodingNames[:], name); i >= 0 {
		return Encoding(i), nil //nolint:gosec // an index of a five-element array
	}
	return 0, Errorf(CodeBadEncoding, "unknown encoding %.32q", name)
}

// MarshalText returns the name of e.
func (e Encoding) MarshalText() ([]byte, error) {
	if !e.Known() {
		return nil, Errorf(CodeBadEncoding, "no name for encoding %d", uint8(e))
	}
	return []byte(e.String()), nil
}

// UnmarshalText is the inverse of MarshalText.
func (e *Encoding) UnmarshalText(p []byte) error {
	v, err := ParseEncoding(string(p))
	if err != nil {
		return err
	}
	*e = v
	return nil
}

// Encodings is a list of encodings, in JSON an array of names. Unknown names are left out, so that a peer may offer
// newer encodings.
type Encodings []Encoding

// Has reports whether e may be used: it is in the list or needs no negotiation.
func (es Encodings) Has(e Encoding) bool {
	return e == EncodingNone || slices.Contains(es, e)
}

// Common returns the encodings of es, in its order, that are also in other.
func (es Encodings) Common(other Encodings) Encodings {
	var both Encodings
	for _, e := range es {
		if slices.Contains(other, e) {
			both = append(both, e)
		}
	}
	return both
}

// MarshalJSON writes an array, never null.
func (es Encodings) MarshalJSON() ([]byte, error) {
	if len(es) == 0 {
		return []byte("[]"), nil
	}
	return json.Marshal([]Encoding(es))
}

// UnmarshalJSON leaves out the names that this version does not know.
func (es *Encodings) UnmarshalJSON(p []byte) error {
	var names []string
	if err := json.Unmarshal(p, &names); err != nil {
		return err
	}
	*es = nil
	for _, name := range names {
		if e, err := ParseEncoding(name); err == nil && !slices.Contains(*es, e) {
			*es = append(*es, e)
		}
	}
	return nil
}

// Sum64 is an XXH3-64 checksum; in JSON 16 lower-case hex digits.
type Sum64 uint64

// MarshalText returns 16 hex digits.
func (s Sum64) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(s)), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *Sum64) UnmarshalText(p []byte) error {
	var b [8]byte
	if err := lowerHex(b[:], p); err != nil {
		return err
	}
	*s = 0
	for _, v := range b {
		*s = *s<<8 | Sum64(v)
	}
	return nil
}

// PlanHash identifies a plan: the XXH3-128 that [PlanSum] describes; in JSON 32
// lower-case hex digits, most significant first.
type PlanHash [16]byte

// String returns 32 hex digits.
func (h PlanHash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns 32 hex digits.
func (h PlanHash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText is the inverse of MarshalText.
func (h *PlanHash) UnmarshalText(p []byte) error { return lowerHex(h[:], p) }

// lowerHex decodes exactly len(dst)*2 lower-case hex digits.
func lowerHex(dst, p []byte) error {
	if len(p) != 2*len(dst) || bytes.ContainsAny(p, "ABCDEF") {
		return fmt.Errorf("want %d lower-case hex digits, got %.40q", 2*len(dst), p)
	}
	_, err := hex.Decode(dst, p)
	return err
}

// RawSum is the checksum of a chunk: XXH3-64 of its raw data pages, one after the
// other in the order of the extents.
func RawSum(pages []byte) uint64 { return xxh3.Hash(pages) }
