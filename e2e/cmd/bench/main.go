// Command bench measures corehaul beside its peers, see package e2e/bench:
//
//	bench -json FILE [flags]                      the quick choice; print tables, write FILE
//	bench -full -json FILE [flags]                the whole matrix
//	bench -report FILE                            print the tables of FILE
//	bench -report FILE -doc PAGE -chart PICTURE   put them between the marks of a page, and draw them
//
// Run it from within the module e2e, as root. $MAKEDUMPFILE may name another build of makedumpfile, whose compressors are measured
// if Debian's lacks them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/corehaul/corehaul/e2e/bench"
)

// errUsage is answered with exit code 2.
var errUsage = errors.New("usage: bench [-full] -json FILE [flags] | bench -report FILE [-doc PAGE] [-chart PICTURE]; -h lists the flags")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// flags are those of a measurement and of a report.
type flags struct {
	full                          bool
	rounds                        int
	bin, json                     string
	links, dumps, levels, methods string
	report, doc, chart            string
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 2 && args[0] == bench.ProxyCommand {
		return bench.RunProxy(ctx, args[1], out)
	}
	var f flags
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.BoolVar(&f.full, "full", false, "the whole matrix")
	set.IntVar(&f.rounds, "rounds", 5, "how often each method is measured")
	set.StringVar(&f.bin, "bin", "../bin", "directory of corehaul's programs")
	set.StringVar(&f.json, "json", "", "write the report to this file")
	set.StringVar(&f.links, "links", "", "only these links, with commas between")
	set.StringVar(&f.dumps, "dumps", "", "only these dumps")
	set.StringVar(&f.levels, "levels", "", "only these dump levels")
	set.StringVar(&f.methods, "methods", "", "only these methods, with semicolons between")
	set.StringVar(&f.report, "report", "", "print the tables of this report")
	set.StringVar(&f.doc, "doc", "", "put the tables into this page")
	set.StringVar(&f.chart, "chart", "", "draw the report into this SVG file")
	if err := set.Parse(args); err != nil {
		return err
	}
	switch {
	case set.NArg() > 0 || f.rounds < 1:
		return errUsage
	case f.report != "" && f.json == "":
		return f.show(out)
	case f.json != "" && f.report == "" && f.doc == "" && f.chart == "":
		return f.measure(ctx, out)
	}
	return errUsage
}

func (f *flags) measure(ctx context.Context, out io.Writer) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	bin, err := filepath.Abs(f.bin)
	if err != nil {
		return err
	}
	jobs := bench.Quick()
	if f.full {
		jobs = bench.Full()
	}
	filter := bench.Filter{Links: names(f.links, ","), Dumps: names(f.dumps, ","), Levels: names(f.levels, ","), Methods: names(f.methods, ";")}
	o := bench.Options{Bin: bin, Program: program, Jobs: filter.Of(jobs), Rounds: f.rounds, Log: os.Stderr}
	if len(o.Jobs) == 0 {
		return fmt.Errorf("the flags leave nothing to measure: %w", errUsage)
	}
	report, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(out, report.Tables()); err != nil {
		return err
	}
	return report.Write(f.json)
}

// names splits a list. An empty one has no names.
func names(list, separator string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, separator)
}

func (f *flags) show(out io.Writer) error {
	report, err := bench.Read(f.report)
	if err != nil {
		return err
	}
	if f.chart != "" {
		picture, err := report.Chart()
		if err == nil {
			err = os.WriteFile(f.chart, picture, 0o644)
		}
		if err != nil {
			return err
		}
	}
	if f.doc != "" {
		return report.WriteInto(f.doc)
	}
	_, err = io.WriteString(out, report.Tables())
	return err
}
