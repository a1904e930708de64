package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/corehaul/corehaul/cmd/internal/cli"
)

// statusWatch are the flags of "status".
type statusWatch struct {
	socket string
	on     bool
	every  cli.DurationValue
}

// leastInterval keeps a watch from taking a CPU.
const leastInterval = 100 * time.Millisecond

func (w *statusWatch) check(flags *pflag.FlagSet) error {
	switch {
	case flags.Changed("interval") && !w.on:
		return cli.WithHint(cli.Usagef("--interval is the time between two prints of --watch, which is missing"), "add --watch")
	case time.Duration(w.every) < leastInterval:
		return cli.Usagef("--interval %s is less than %s", w.every.String(), leastInterval)
	}
	return nil
}

// watchStatus prints the status, first st, until ctx ends, which is no error. A server that goes away is asked again.
func (a *app) watchStatus(ctx context.Context, path string, w *statusWatch, st *serverStatus) error {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	tick := time.NewTicker(time.Duration(w.every))
	defer tick.Stop()
	p := watchPrinter{app: a}
	var failed error
	for {
		if err := p.print(st, failed); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
			p.resized()
		case <-tick.C:
		}
		now, err := askStatus(ctx, path)
		if ctx.Err() != nil {
			return nil
		}
		if failed = err; err == nil {
			st = now
		}
	}
}

// watchPrinter prints one status after another.
type watchPrinter struct {
	*app

	began bool // something was printed
	lines int  // of the last screen, above the cursor
	clear bool // the terminal has another size: nobody knows where its lines are
}

func (p *watchPrinter) resized() { p.clear = true }

// print prints st, or if the server has not answered, why.
func (p *watchPrinter) print(st *serverStatus, failed error) error {
	columns, lines := cli.Size(p.stdio.Out)
	f := &frame{columns: columns}
	switch {
	case p.json && failed != nil:
		p.stdio.Warn("corehaul", "%v; asking again", failed)
		return nil
	case p.json:
		return cli.JSONLine(p.stdio.Out, st)
	case failed != nil:
		line := fmt.Sprintf("%s: %s; asking again", cli.Time(time.Now()), cli.Printable(failed.Error()))
		f.WriteString(cli.Fold(line, 2, columns) + "\n")
	default:
		if err := printFrame(f, st, lines); err != nil {
			return err
		}
	}
	if lines == 0 {
		return p.block(f.String())
	}
	return p.screen(f.fit(lines-1), columns)
}

// printFrame prints a status. On a terminal, which may have no room for all, what changes comes first.
func printFrame(f *frame, st *serverStatus, lines int) error {
	if lines == 0 {
		return printStatus(f, st)
	}
	if err := errors.Join(printSessions(f, &st.Status), printGone(f, &st.Status)); err != nil {
		return err
	}
	f.Next(len("\n")) // the empty line before the sessions
	f.WriteString("\n")
	return printServer(f, st)
}

// block prints a status to a pipe or a file, after an empty line unless it is the first.
func (p *watchPrinter) block(text string) error {
	if p.began {
		text = "\n" + text
	}
	p.began = true
	_, err := fmt.Fprint(p.stdio.Out, text)
	return err
}

// screen puts lines in the place of those that it printed before. It changes no mode of the terminal, so that there is nothing to restore,
// however the program ends.
func (p *watchPrinter) screen(lines []string, columns int) error {
	var b strings.Builder
	switch {
	case p.clear:
		b.WriteString("\x1b[H\x1b[2J")
	case p.lines > 0:
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", p.lines)
	}
	for _, line := range lines {
		b.WriteString(cli.Clip(line, columns) + "\n")
	}
	p.clear, p.lines = false, len(lines)
	_, err := fmt.Fprint(p.stdio.Out, b.String())
	return err
}

// frame is a text for a terminal of so many columns.
type frame struct {
	bytes.Buffer

	columns int
}

// Columns is for cli.Width.
func (f *frame) Columns() int { return f.columns }

// fit returns the text in at most so many lines. The last one says how many there is no room for.
func (f *frame) fit(most int) []string {
	lines := strings.Split(strings.TrimSuffix(f.String(), "\n"), "\n")
	if most = max(most, 1); len(lines) > most {
		lines = append(lines[:most-1:most-1], fmt.Sprintf("… and %d more lines", len(lines)-most+1))
	}
	return lines
}
