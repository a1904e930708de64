package printk

import "github.com/corehaul/corehaul/kernel/headline"

// TitleFinder finds the line of a log that best names the crash. Pass the lines in order to Add, then call Line. The
// zero TitleFinder is ready.
type TitleFinder struct {
	finder headline.Finder
	told   *headline.Line // the panic line that a mark of a Shortener names
}

// Add takes the next line of the log, with or without the time stamp of Dump.
func (f *TitleFinder) Add(line string) { f.add(line, 0) }

// add takes the line at offset at.
func (f *TitleFinder) add(line string, at uint64) {
	if told, ok := markTitle(line); ok {
		f.told = &headline.Line{Text: told, At: at}
		return
	}
	l := headline.Parse(line)
	l.At = at
	f.finder.Add(l)
}

// Line returns the panic message without time stamp. If there is none, or a vague one, it returns the first headline
// of the last report before it. It is empty if the log shows no crash. For a shortened log it is the line of the
// whole log.
func (f *TitleFinder) Line() string {
	line, _ := f.title()
	return line.Text
}

// title returns the line and whether there is one.
func (f *TitleFinder) title() (headline.Line, bool) {
	if f.told != nil {
		return *f.told, true
	}
	line, source := f.finder.Chosen()
	return line, source != headline.NoCrash
}
