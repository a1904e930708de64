package main

import (
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/internal/bytesize"
)

// barDelay is how long work takes before a bar shows it: a bar that goes at once only flickers.
const barDelay = 300 * time.Millisecond

// progress returns what shows the progress of some work as a bar on the terminal that standard error is, and what removes the bar. They
// show nothing anywhere else, and on a terminal that does not say how wide it is.
func (a *app) progress(what string) (update func(done, total int64), done func()) {
	columns := cli.Width(a.stdio.Err)
	if columns == 0 {
		return func(_, _ int64) {}, func() {}
	}
	b := &bar{app: a, what: cli.Clip(cli.Printable(what), max(columns/3, 1))}
	return b.update, b.end
}

// steps is progress for work that has several steps, each of which may count something else.
func (a *app) steps() (update func(step string, done, total int64), done func()) {
	now, tell, end := "", func(_, _ int64) {}, func() {}
	update = func(step string, done, total int64) {
		if step != now {
			end()
			now = step
			tell, end = a.progress(step)
		}
		tell(done, total)
	}
	return update, func() { end() }
}

// bar is the bar of a piece of work. It is made with the first news.
type bar struct {
	app  *app
	what string

	mu       sync.Mutex
	all      *mpb.Progress
	one      *mpb.Bar
	began    time.Time
	first    int64 // what was done when the bar began
	unfreeze *time.Timer
}

func (b *bar) update(done, total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.start(done)
	}
	b.one.SetTotal(max(total, 0), false)
	b.one.SetCurrent(done)
}

func (b *bar) start(done int64) {
	visible := make(chan any)
	b.unfreeze = time.AfterFunc(barDelay, func() { close(visible) })
	b.began, b.first = time.Now(), done
	b.all = mpb.New(mpb.WithOutput(b.app.stdio.Err), mpb.WithRenderDelay(visible))
	b.one = b.all.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.PrependDecorators(decor.Name(b.what), decor.NewPercentage("%d", decor.WC{W: 5})),
		mpb.AppendDecorators(decor.Any(b.pace)))
}

// pace is the rate of the work, and the time that is left at this rate.
func (b *bar) pace(s decor.Statistics) string {
	took := time.Since(b.began)
	rate := float64(s.Current-b.first) / took.Seconds()
	if rate <= 0 {
		return ""
	}
	text := bytesize.Format(uint64(rate)) + "/s"
	if left := float64(s.Total-s.Current) / rate; left >= 1 && left < maxLeft.Seconds() {
		text += ", " + cli.Duration(time.Duration(left)*time.Second) + " left"
	}
	return text
}

// maxLeft is the longest time that is shown: a longer one only says that the work has hardly begun.
const maxLeft = 100 * 24 * time.Hour

// end removes the bar.
func (b *bar) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		return
	}
	b.unfreeze.Stop()
	b.one.Abort(true)
	b.all.Wait()
	b.all = nil
}
