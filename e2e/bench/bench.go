// Package bench measures how long a dump takes until it is durable, and what that costs the machine that sends and the one that
// receives. It runs corehaul and its peers, such as makedumpfile into ssh, one beside the other on one machine.
//
// A Cell is a situation: a link, a dump, a dump level, and whether each side is bound to a core. A Job is a method in a cell. Run
// runs all jobs once without measuring, and then round by round, so that a slow minute of the machine hits every job alike. Each
// run has a receiver of its own with an empty directory.
//
// The links are network namespaces of this process, which end with it. Bytes of a link are those that the kernel hands to its device: a
// large segment counts with one header.
//
// The package needs root, the programs that `make build` leaves, and what e2e/install.sh installs. It is for one goroutine.
package bench

import (
	"slices"
	"strings"
)

// A Cell is a situation in which methods are compared.
type Cell struct {
	// Link is the name of one of Links.
	Link string `json:"link"`
	// Dump is the name of one of Dumps.
	Dump string `json:"dump"`
	// Level is the dump level.
	Level int `json:"level"`
	// Bound means that the sender runs on core 0 only, the receiver on core 1.
	Bound bool `json:"bound"`
}

// A Job is a method in a cell.
type Job struct {
	Cell
	Method Method
}

// Names of the links.
const (
	Loopback = "loopback"
	Gigabit  = "1gbit"
	Fast     = "100mbit"
	Distant  = "1gbit-20ms"
)

// Quick is the choice of jobs that takes minutes.
func Quick() []Job {
	var jobs []Job
	for _, dump := range Dumps {
		for _, level := range levels {
			jobs = append(jobs, jobsOf(Cell{Link: Loopback, Dump: dump.Name, Level: level}, quickMethods)...)
		}
	}
	for _, situation := range []Cell{{Link: Loopback, Bound: true}, {Link: Gigabit}} {
		for _, level := range levels {
			cell := Cell{Link: situation.Link, Dump: Busy, Level: level, Bound: situation.Bound}
			jobs = append(jobs, jobsOf(cell, networkOnly(quickMethods))...)
		}
	}
	return jobs
}

// Full is the whole matrix. Sides are bound to cores on the loopback only, where cores limit most.
func Full() []Job {
	var jobs []Job
	for _, link := range Links {
		for _, bound := range []bool{false, true} {
			if bound && link.Name != Loopback {
				continue
			}
			methods := Methods
			if link.Name != Loopback {
				methods = networkOnly(methods)
			}
			for _, dump := range Dumps {
				for _, level := range levels {
					jobs = append(jobs, jobsOf(Cell{link.Name, dump.Name, level, bound}, methods)...)
				}
			}
		}
	}
	return jobs
}

// levels are the dump levels of both choices: the usual one, and the one that leaves out zero pages only.
var levels = []int{31, 1}

func jobsOf(cell Cell, methods []Method) []Job {
	var jobs []Job
	for _, m := range methods {
		jobs = append(jobs, Job{cell, m})
	}
	return jobs
}

func networkOnly(methods []Method) []Method {
	return slices.DeleteFunc(slices.Clone(methods), func(m Method) bool { return m.Local })
}

// A Filter restricts jobs. An empty list of names restricts nothing.
type Filter struct {
	Links, Dumps, Levels, Methods []string
}

// Of returns the jobs that the filter leaves.
func (f Filter) Of(jobs []Job) []Job {
	has := func(names []string, name string) bool { return len(names) == 0 || slices.Contains(names, name) }
	var left []Job
	for _, j := range jobs {
		if has(f.Links, j.Link) && has(f.Dumps, j.Dump) && has(f.Levels, levelName(j.Level)) && has(f.Methods, j.Method.Name) {
			left = append(left, j)
		}
	}
	return left
}

// String is the heading of a cell.
func (c Cell) String() string {
	words := []string{c.Link, c.Dump, "level " + levelName(c.Level)}
	if c.Bound {
		words = append(words, "each side on a core of its own")
	}
	return strings.Join(words, ", ")
}
