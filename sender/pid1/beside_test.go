package pid1

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corehaul/corehaul/sender/config"
)

// runBeside runs in another capture system to the end, and returns what stands on the console.
func runBeside(t *testing.T, f *fake, job Job) (out Outcome, said string) {
	t.Helper()
	var console bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		r := &runner{sys: f, job: job, start: time.Now(), console: NewConsole(&console)}
		out = r.beside(t.Context())
		synctest.Wait()
	})
	return out, console.String()
}

// TestBeside: a dump that is stored ends the machine. After any other, the other system goes on at once, with the watchdog off.
func TestBeside(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*fake)
		out    Outcome
		ended  string
	}{
		{"stored", nil, Outcome{Line: "dump complete", State: "complete"}, "poweroff"},
		{"failed", nil, Outcome{Line: "dump failed: no receiver answers", Failed: true}, ""},
		{"a bad configuration", func(f *fake) { f.files[config.Path] = "what = 1\n" }, Outcome{Failed: true}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(goodConfig)
			f.dog = &fakeDog{after: time.Minute}
			if tc.change != nil {
				tc.change(f)
			}
			out, said := runBeside(t, f, func(context.Context, Env) Outcome { return tc.out })
			if out.Failed != tc.out.Failed || strings.Join(f.ended, " ") != tc.ended || f.paused != 0 {
				t.Errorf("%+v, ended %q after %v\n%s", out, f.ended, f.paused, said)
			}
			if f.dog.armed {
				t.Errorf("the watchdog runs on\n%s", said)
			}
		})
	}
}

// TestWords: words of the image count like those of the command line, and less.
func TestWords(t *testing.T) {
	f := newFake(goodConfig)
	f.files[config.WordsPath] = "corehaul.level=17 corehaul.vlan=7 corehaul.routes=\"10.0.0.0/8 via 192.0.2.1\"\n"
	runBeside(t, f, func(_ context.Context, env Env) Outcome {
		if c := env.Config; c.Level != 1 || c.Network.VLAN != 7 || len(c.Network.Routes) != 1 {
			t.Errorf("got level %d, %+v", c.Level, c.Network)
		}
		return Outcome{Line: "dump complete"}
	})
}
