package bench

import (
	"slices"
	"strconv"
)

// A Sample is what one run took. It has no rounded values.
type Sample struct {
	// Wall is the time from the start of the sender until the dump is durable.
	Wall float64 `json:"wall_s"`
	// SenderCPU and ReceiverCPU are user and system time of all processes of a side.
	SenderCPU   float64 `json:"sender_cpu_s"`
	ReceiverCPU float64 `json:"receiver_cpu_s"`
	// Wire is what the link carried in both directions.
	Wire float64 `json:"wire_bytes"`
	// Stored is the disk space of the stored vmcore.
	Stored float64 `json:"stored_bytes"`
	// SenderRSS and ReceiverRSS are the peaks of the largest process of a side.
	SenderRSS   float64 `json:"sender_rss_bytes"`
	ReceiverRSS float64 `json:"receiver_rss_bytes"`
}

// values are all numbers of a sample.
func (s *Sample) values() []*float64 {
	return []*float64{&s.Wall, &s.SenderCPU, &s.ReceiverCPU, &s.Wire, &s.Stored, &s.SenderRSS, &s.ReceiverRSS}
}

// CPU is the time of both sides.
func (s *Sample) CPU() float64 { return s.SenderCPU + s.ReceiverCPU }

// A Row is what all measured runs of a job took.
type Row struct {
	Cell
	// Method is the name of the method.
	Method string `json:"method"`
	// Peer tells that the method is not corehaul's.
	Peer bool `json:"peer"`
	// Local tells that the method writes a local file. Its peers are the local ones.
	Local bool     `json:"local"`
	Runs  []Sample `json:"runs"`
	// Median, Min and Max are of each number by itself.
	Median Sample `json:"median"`
	Min    Sample `json:"min"`
	Max    Sample `json:"max"`
}

// summarize sets the median and the spread of each number.
func (r *Row) summarize() {
	for i, median := range r.Median.values() {
		var all []float64
		for k := range r.Runs {
			all = append(all, *r.Runs[k].values()[i])
		}
		slices.Sort(all)
		*median = middle(all)
		*r.Min.values()[i] = all[0]
		*r.Max.values()[i] = all[len(all)-1]
	}
}

// middle is the median of sorted values.
func middle(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratio is a number of a row as a multiple of the lowest of its peers: the methods of others in the same cell that store alike.
// Without peers, or for a peer, ok is false.
func ratio(r *Row, rows []Row, number func(*Sample) float64) (x float64, ok bool) {
	var best float64
	for i := range rows {
		p := &rows[i]
		if !p.Peer || p.Cell != r.Cell || p.Local != r.Local {
			continue
		}
		if n := number(&p.Median); n > 0 && (best == 0 || n < best) {
			best = n
		}
	}
	if r.Peer || best == 0 {
		return 0, false
	}
	return number(&r.Median) / best, true
}

func levelName(level int) string { return strconv.Itoa(level) }
