package cage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/internal/plainfile"
	"github.com/corehaul/corehaul/kernel/oops"
	"github.com/corehaul/corehaul/triage"
)

// ChildCommand is the first argument of a program that is to be the child. The others are those of Child.
const ChildCommand = "triage-child"

// What a child reads: its first argument.
const (
	ofDump    = "dump"
	ofLog     = "log"
	ofNothing = "nothing"
)

// frontFD is the descriptor of the temporary file that the parent made.
const frontFD = 3

// Child is the program of the child, and returns its exit code. It confines this process for good, reads the dump in the working
// directory, and writes the answer to standard output. The arguments are what to read, and the Limits as JSON.
func Child(args []string) int {
	if err := child(args, read); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child confines the process, and writes the answer that read gives then.
func child(args []string, read func(of string) answer) error {
	if len(args) != 2 {
		return errors.New("this command is for corehaul itself: 'corehaul serve' starts it for each dump")
	}
	var limits Limits
	if err := json.Unmarshal([]byte(args[1]), &limits); err != nil {
		return err
	}
	of := args[0]
	missing, err := confine(limits.withDefaults(), of != ofNothing)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(state{missing}); err != nil {
		return err
	}
	return out.Encode(read(of))
}

// read makes the report of what lies in the working directory.
func read(of string) answer {
	switch of {
	case ofDump:
		return readDump(context.Background(), os.NewFile(frontFD, "front"))
	case ofLog:
		return readLog()
	}
	return answer{}
}

// readLog makes the report of the log alone.
func readLog() answer {
	log, err := openLog()
	switch {
	case err != nil:
		return answer{Failed: "the stored log: " + err.Error()}
	case log == nil:
		return answer{Failed: "there is no log"}
	}
	return answer{Report: ofText(log)}
}

// openLog opens the stored log. It returns nil if there is none.
func openLog() (io.Reader, error) {
	f, err := plainfile.Open(dumpdir.LogName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// ofText makes the report of the text of a log, also of one without a crash.
func ofText(log io.Reader) *triage.Report {
	r, err := triage.OfLog(log)
	if err == nil {
		return r
	}
	r = nothing()
	if errors.Is(err, oops.ErrNoCrash) {
		r.Sources = append(r.Sources, triage.SourceLog)
	}
	r.Unread = append(r.Unread, "the stored log: "+err.Error())
	return r
}

// nothing is the report of a dump of which nothing has been read.
func nothing() *triage.Report {
	return &triage.Report{Version: triage.Version, Sources: []string{}, Kind: oops.Unknown}
}

// readDump makes the report of the dump in the working directory. front becomes the front of its vmcore.
func readDump(ctx context.Context, front *os.File) answer {
	log, logErr := openLog()
	d, err := dumpdir.Open(dumpdir.OS{}, ".")
	var img *dumpdir.Image
	if err == nil {
		img, err = openImage(ctx, d, front)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return answer{NoSpace: err.Error()}
	}
	var r *triage.Report
	switch {
	case img != nil:
		r = triage.OfDump(triage.Open(img), log)
	case log != nil:
		r = ofText(log)
	default:
		r = nothing()
	}
	if err != nil {
		r.Unread = append(r.Unread, "memory: "+err.Error())
	}
	if logErr != nil {
		r.Unread = append(r.Unread, "the stored log: "+logErr.Error())
	}
	if d != nil {
		r.Unread = append(r.Unread, damage(ctx, d, img)...)
	}
	return answer{Report: r}
}

// openImage opens the memory of a dump.
func openImage(ctx context.Context, d *dumpdir.Dump, front *os.File) (*dumpdir.Image, error) {
	img, err := d.OpenImageOn(ctx, front)
	if errors.Is(err, fs.ErrNotExist) && d.Manifest().Plan == nil {
		return nil, errors.New("the dump has no pages, only the log")
	}
	return img, err
}

// maxDamage is how many damaged places a report names.
const maxDamage = 10

// damage lists the damage that was met: that of the journal or the manifest, of the log, and of the pages that were read. img may be nil.
func damage(ctx context.Context, d *dumpdir.Dump, img *dumpdir.Image) (lines []string) {
	if err := d.Damage(); err != nil {
		lines = append(lines, err.Error())
	}
	if intact, err := d.LogIntact(ctx); err == nil && !intact {
		lines = append(lines, dumpdir.LogName+": damaged: its SHA-256 differs from the one in the journal")
	}
	if img == nil {
		return lines
	}
	found, places := img.Damage()
	for i, f := range found {
		if i == maxDamage {
			return append(lines, fmt.Sprintf("vmcore: damaged in %d more places", places-maxDamage))
		}
		lines = append(lines, f.String())
	}
	return lines
}
