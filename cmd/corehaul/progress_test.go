package main

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/cmd/internal/clitest"
	"github.com/corehaul/corehaul/internal/outputtest"
)

// TestBar shows a bar with rate and time left on terminals of three widths, which goes when the work is done.
func TestBar(t *testing.T) {
	shown := regexp.MustCompile(`verify .*\d+% +(\[[=> ]+\] +)?[\d.]+ [KMG]?i?B/s, [\ddhms. ]+ left`)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, columns := range []uint16{50, 80, 200} {
		s := clitest.Terminal(t, columns)
		a := &app{stdio: cli.Stdio{Err: s.TTY}}
		tell, end := a.progress("verify web1/" + strings.Repeat("a", 32))
		const total = 1 << 40
		limit := time.Now().Add(time.Minute)
		for n := int64(1); !shown.MatchString(s.Seen()); n = min(n+total>>20, total/2) {
			if time.Now().After(limit) {
				t.Fatalf("%d columns: no bar in %q", columns, s.Seen())
			}
			tell(n, total)
			<-tick.C
		}
		end()
		end()
		text := s.End()
		if !strings.HasSuffix(text, "\x1b[1A\x1b[J") {
			t.Errorf("%d columns: the bar stays: %q", columns, text)
		}
		for line := range strings.Lines(strings.ReplaceAll(text, "\x1b[1A\x1b[J", "")) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > int(columns) {
				t.Errorf("%d columns: %d of %q", columns, n, line)
			}
		}
	}
}

// TestNoBar writes nothing to a file, nor to a terminal that does not say how wide it is.
func TestNoBar(t *testing.T) {
	s := clitest.Terminal(t, 0)
	var file outputtest.Buffer
	for _, a := range []*app{{stdio: cli.Stdio{Err: s.TTY}}, {stdio: cli.Stdio{Err: &file}}} {
		tell, end := a.steps()
		tell("one", 1, 2)
		tell("two", 1, 0)
		end()
	}
	if text := s.End() + file.String(); text != "" {
		t.Errorf("wrote %q", text)
	}
}
