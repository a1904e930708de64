package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// A Report is the result of Run.
type Report struct {
	Machine Machine `json:"machine"`
	Rounds  int     `json:"rounds"`
	// Idle is the CPU time of each receiver, by its name, when nobody sends. The rows include it.
	Idle  map[string]float64 `json:"idle_receiver_cpu_s"`
	Links []Calibration      `json:"links"`
	Rows  []Row              `json:"rows"`
}

// Write writes a report to a file, as JSON.
func (r *Report) Write(file string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// Read reads a report out of a file.
func Read(file string) (*Report, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("run make bench first: %w", err)
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// Marks of the place in a page where the tables go.
const (
	beginMark = "<!-- bench: begin -->\n"
	endMark   = "<!-- bench: end -->\n"
)

// WriteInto puts the tables between the marks of a page.
func (r *Report) WriteInto(page string) error {
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), beginMark)
	_, after, ended := strings.Cut(rest, endMark)
	if !ok || !ended {
		return fmt.Errorf("%s: no lines %q and %q", page, beginMark, endMark)
	}
	return os.WriteFile(page, []byte(before+beginMark+r.Tables()+endMark+after), 0o644)
}
