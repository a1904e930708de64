package cage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/corehaul/corehaul/triage"
)

// A child writes two JSON documents, each on one line: the state of its confinement before it reads the dump, then its answer. A
// child that ends before the first has not seen the dump.

// state is the state of the confinement.
type state struct {
	Missing []string `json:"missing"` // layers that the kernel lacks
}

// answer has a report, or the reason why there is none. All are empty if nothing was to be read.
type answer struct {
	Report  *triage.Report `json:"report,omitempty"`
	Failed  string         `json:"failed,omitempty"`
	NoSpace string         `json:"no_space,omitempty"` // the disk is full, so the dump can be read another time
}

// maxParts bounds the objects, lists and members of an answer, because two bytes of JSON can become a structure of 200 bytes. A report of 8
// MiB has about as many: one for each 16 bytes.
const maxParts = 1 << 19

// decode reads what a child wrote. The child may have been taken over: decode takes an answer of the form that this version of the
// program writes, and nothing else. Its memory is bounded by the length and maxParts, its depth by that of the types: encoding/json
// refuses more than 10,000 levels before it looks at them. confined says that the state of the confinement was there.
//
// Texts of the answer are those of a crashed machine, as in any report.
func decode(out []byte) (s state, a answer, confined bool, err error) {
	first, rest, _ := bytes.Cut(out, []byte("\n"))
	if err := decodeOne(first, &s); err != nil {
		return state{}, answer{}, false, err
	}
	if n := parts(rest); n > maxParts {
		return s, answer{}, true, fmt.Errorf("%d parts, more than %d", n, maxParts)
	}
	if err := decodeOne(rest, &a); err != nil {
		return s, answer{}, true, err
	}
	if a.Report != nil && a.Report.Version != triage.Version {
		return s, answer{}, true, fmt.Errorf("a report of version %d", a.Report.Version)
	}
	return s, a, true, nil
}

// decodeOne decodes the only JSON document of b. Fields that v does not have are an error.
func decodeOne(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one document")
	}
	return nil
}

// parts is at least the number of objects, lists and members of the JSON in b: characters in texts count too.
func parts(b []byte) int {
	return bytes.Count(b, []byte("{")) + bytes.Count(b, []byte("[")) + bytes.Count(b, []byte(","))
}
