package reports

// Status counts what a Runner has to do.
type Status struct {
	Waiting  int `json:"waiting"`  // dumps and logs without a report, with those that are being read
	Renewals int `json:"renewals"` // reports of older versions that will be made again
	Retrying int `json:"retrying"` // reports that could not be made or stored, and will be tried again later
	Failed   int `json:"failed"`   // dumps that could not be read; their reports say why
}

// Status returns what is to be done now. It may be called at any time.
func (r *Runner) Status() Status {
	if st := r.status.Load(); st != nil {
		return *st
	}
	return Status{}
}

// tell publishes the status.
func (s *run) tell() {
	st := &Status{Renewals: len(s.queues[renewals].arrived) + s.active[renewals], Retrying: len(s.failed), Failed: len(s.unread)}
	for _, l := range []lane{logs, fresh, behind} {
		st.Waiting += len(s.queues[l].arrived) + s.active[l]
	}
	s.status.Store(st)
}
