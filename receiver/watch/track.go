package watch

import "time"

// track is what a watcher remembers of a directory.
type track struct {
	signature string
	since     time.Time // when it was first seen so
	seen      time.Time // by the last look
	empty     bool      // there is no dump in it
	told      bool      // the log says that a dump is arriving
	changes   int       // how often it changed while it was copied
	later     bool      // the last try found that somebody still writes it
	tries     int       // that failed
	next      time.Time // when to try again
	failure   string    // of the last try, as the log has it
}

// Times after which a try is repeated: one that failed, each time after twice as long, and one that found a file that is being written.
const (
	firstRetry = time.Minute
	lastRetry  = time.Hour
	laterRetry = 20 * time.Second
)

// maxTracks bounds the directories in memory, and forget is how long one stays there that no look has seen.
const (
	maxTracks = 1 << 16
	forget    = 2 * time.Hour
)

// settled reports whether nothing is left to do with a directory.
func (r *root) settled(f *found) bool {
	if t := r.tracks[f.rel]; t != nil && t.empty && t.signature == f.record.Signature {
		t.seen = r.clock()
		return true
	}
	return r.mem.settled(r.abs(f.rel), f.record)
}

// trackOf returns the track of a directory. If its signature differs from the last one, everything begins anew, apart from what the log has.
func (r *root) trackOf(f *found) *track {
	now := r.clock()
	t := r.tracks[f.rel]
	if t == nil || t.signature != f.record.Signature {
		was := track{}
		if t != nil {
			was = *t
		}
		t = &track{signature: f.record.Signature, since: now, failure: was.failure, told: was.told, changes: was.changes, later: was.later}
		if was.changes > 0 {
			t.next = was.next
		}
		if len(r.tracks) < maxTracks || r.tracks[f.rel] != nil {
			r.tracks[f.rel] = t
		}
	}
	t.seen = now
	return t
}

// quietFor returns how long a directory has not changed, by the clock of this machine: the times of files may come from others.
func (r *root) quietFor(t *track) time.Duration { return r.clock().Sub(t.since) }

// failed notes that a try failed, and logs it unless the log has the same already.
func (r *root) failed(f *found, t *track, err error) {
	if text := err.Error(); t.failure != text {
		t.failure = text
		r.warn("cannot take what is in a watched directory; will try again", "path", r.abs(f.rel), "error", err)
	}
	t.next = r.clock().Add(min(firstRetry<<min(t.tries, 10), lastRetry))
	t.tries++
}

// done notes that nothing is left to do with a directory.
func (r *root) done(f *found) {
	delete(r.tracks, f.rel)
	r.mem.settle(r.abs(f.rel), f.record, r.clock())
}

// maxLines bounds the lines of the log that one look writes about what cannot be taken.
const maxLines = 20

// warn logs a line of a look, up to maxLines.
func (r *root) warn(text string, args ...any) {
	switch r.lines++; {
	case r.lines <= maxLines:
		r.log.Warn(text, args...)
	case r.lines == maxLines+1:
		r.log.Warn("more of a watched directory cannot be taken; 'corehaul status' counts it")
	}
}

// report logs paths that cannot be read, unless the last look found the same, and counts what fails.
func (r *root) report(bad map[string]string) (failing int) {
	for rel, why := range bad {
		if r.bad[rel] != why {
			r.warn("a path of a watched directory is left out", "path", r.abs(rel), "reason", why)
		}
	}
	r.bad = bad
	now := r.clock()
	for rel, t := range r.tracks {
		if now.Sub(t.seen) > forget {
			delete(r.tracks, rel)
		} else if t.failure != "" {
			failing++
		}
	}
	return failing + len(bad)
}
