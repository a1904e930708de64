package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corehaul/corehaul/sender/pid1"
)

const (
	someReceiver = "tls://192.0.2.1:1"
	someDisk     = "file:///crash?fs=LABEL=x"
)

// TestAwaitNetwork: a network that does not come up costs the dump only if there is no disk. A disk that comes first waits for
// nothing.
func TestAwaitNetwork(t *testing.T) {
	for _, tc := range []struct {
		to   []string
		wait time.Duration
		fail bool
	}{
		{[]string{someReceiver}, time.Hour, true},
		{[]string{someReceiver, someDisk}, networkPatience, false},
		{[]string{someDisk, someReceiver}, 0, false},
		{[]string{someDisk}, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var console bytes.Buffer
			env := pid1.Env{Console: pid1.NewConsole(&console), Network: func(ctx context.Context) error {
				select {
				case <-time.After(time.Hour):
					return errors.New("no carrier")
				case <-ctx.Done():
					return ctx.Err()
				}
			}}
			start := time.Now()
			err := awaitNetwork(t.Context(), env, tc.to)
			if waited := time.Since(start); (err != nil) != tc.fail || waited != tc.wait {
				t.Errorf("%q: %v after %v, want an error: %v, after %v", tc.to, err, waited, tc.fail, tc.wait)
			}
			if said := strings.Contains(console.String(), "warning: no network yet"); said != (tc.wait == networkPatience) {
				t.Errorf("%q: the console says %q", tc.to, console.String())
			}
		})
	}
}

// lines remembers what was doubted.
type lines struct{ doubted []string }

func (l *lines) Dial(context.Context, *net.Dialer, string, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

func (l *lines) Doubt(host string) { l.doubted = append(l.doubted, host) }

// TestOnNetwork: only targets that need the network wait for it, and only theirs links are doubted.
func TestOnNetwork(t *testing.T) {
	down := errors.New("no carrier")
	wrong := errors.New("the wrong server")
	network, links := down, new(lines)
	env := pid1.Env{Lines: links, Network: func(context.Context) error { return network }}
	dial := onNetwork(env, func(context.Context, string) (net.Conn, error) { return nil, wrong })
	if _, err := dial(t.Context(), someReceiver); !errors.Is(err, down) {
		t.Errorf("%s: %v", someReceiver, err)
	}
	if _, err := dial(t.Context(), someDisk); !errors.Is(err, wrong) || len(links.doubted) > 0 {
		t.Errorf("%s: %v, doubted %q", someDisk, err, links.doubted)
	}
	network = nil
	if _, err := dial(t.Context(), "ssh://u@[2001:db8::1]:22"); !errors.Is(err, wrong) || !slices.Equal(links.doubted, []string{"2001:db8::1"}) {
		t.Errorf("%v, doubted %q", err, links.doubted)
	}
}
