package receiver

import (
	"io"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/printk"
	"github.com/corehaul/corehaul/protocol"
)

// TestShortenedLogKeepsItsPanicLine takes a log that its sender has shortened. What is left of it speaks of another fault than the
// whole log does, and the dump is known by that of the whole.
func TestShortenedLogKeepsItsPanicLine(t *testing.T) {
	const fault = "BUG: kernel NULL pointer dereference, address: 0000000000000008"
	filler := strings.Repeat("[    4.0] nothing to see\n", 40000)
	log := filler + "[    5.0] " + fault + "\n" + filler + "[    6.0] WARNING: CPU: 0 PID: 1 at a.c:1 f\n" +
		"[    6.1] Kernel panic - not syncing: Fatal exception\n"
	var whole printk.TitleScanner
	_, _ = io.WriteString(&whole, log)
	var short strings.Builder
	s := printk.NewShortener(&short, &whole, printk.MinShortened)
	if _, err := io.WriteString(s, log); err != nil || s.LeftOut() == 0 {
		t.Fatal(err, s.LeftOut())
	}
	r := newRig(t, nil)
	d := newDump(t, 1)
	d.log = short.String()
	p := r.peer("web1", d)
	p.hello()
	expect[*protocol.Welcome](p)
	p.finish(protocol.ReasonCancelled)
	if got := r.stored("web1").PanicLine; got != fault {
		t.Errorf("panic line %q", got)
	}
}
