package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// line is a line between sender and receiver that can be bad in many ways: real TCP
// connections through toxiproxy.
type line struct {
	*toxiproxy.Proxy
}

// newLine starts a line to an address of this host; it is cut when the test ends.
func newLine(tb testing.TB, to string) *line {
	tb.Helper()
	zerolog.SetGlobalLevel(zerolog.Disabled) // it tells of every connection
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := &line{toxiproxy.NewProxy(server, tb.Name(), "127.0.0.1:0", to)}
	if err := l.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(l.Stop)
	return l
}

// target is the line's near end, for --to.
func (l *line) target() string { return "tls://" + l.Listen }

// Directions of a toxic.
const (
	toReceiver = "upstream"
	toSender   = "downstream"
)

// toxic makes the line bad and returns the name for cure. attributes is JSON, see toxiproxy's
// README.
func (l *line) toxic(tb testing.TB, kind, direction, attributes string) string {
	tb.Helper()
	name := kind + "-" + direction
	text := fmt.Sprintf(`{"name": %q, "type": %q, "stream": %q, "toxicity": 1, "attributes": %s}`, name, kind, direction, attributes)
	if _, err := l.Toxics.AddToxicJson(strings.NewReader(text)); err != nil {
		tb.Fatalf("toxic %s: %v", text, err)
	}
	return name
}

// slow limits the line to so many kB/s toward the receiver.
func (l *line) slow(tb testing.TB, kbPerSecond int) string {
	tb.Helper()
	return l.toxic(tb, "bandwidth", toReceiver, fmt.Sprintf(`{"rate": %d}`, kbPerSecond))
}

// cure removes a toxic.
func (l *line) cure(tb testing.TB, name string) {
	tb.Helper()
	if err := l.Toxics.RemoveToxic(tb.Context(), name); err != nil {
		tb.Fatalf("remove %s: %v", name, err)
	}
}

// cut ends all connections; new ones work.
func (l *line) cut(tb testing.TB) {
	tb.Helper()
	l.Stop()
	if err := l.Start(); err != nil {
		tb.Fatal(err)
	}
}
