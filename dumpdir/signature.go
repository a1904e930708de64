package dumpdir

// Limits of a Signature.
const (
	signatureLen       = 16  // of ID and Coarse, in hexadecimal digits
	maxSignatureFrames = 12  // words of Frames
	maxSignatureFrame  = 256 // bytes of one
)

// Signature names a crash, so that the same crash is known again (see kernel/signature). Two dumps of one crash have the same ID.
type Signature struct {
	ID     string `json:"id"`     // 16 hexadecimal digits
	Coarse string `json:"coarse"` // the same; all crashes of one kind in one function have it
	// Frames are the words that the signature was made of, for people: the kind, then functions, the culprit first.
	Frames []string `json:"frames"`
	// Vague says that no place in the code is in it, because the log lacked the call trace. Different crashes may have it.
	Vague bool `json:"vague,omitempty"`
}

// NamesPlace reports whether a place in the code is in the signature. Different crashes have one without: the log lacked the call trace, or the
// class is one whose place is chance, such as oom, and is the only word. False for nil.
func (s *Signature) NamesPlace() bool { return s != nil && !s.Vague && len(s.Frames) != 1 }

// Signatures are those of one dump. Both are equal where log and memory say the same.
type Signatures struct {
	Log    *Signature `json:"log,omitempty"`    // nil: the log shows no crash of a known kind, or there is none
	Memory *Signature `json:"memory,omitempty"` // nil: memory does not say what crashed, or says another thing than the log
}

// Best returns the signature by which a dump is grouped: the log's, because it is known first, unless only the memory's names a place.
// It is nil if there is none.
func (s Signatures) Best() *Signature {
	if s.Log == nil || s.Log.Vague && s.Memory != nil && !s.Memory.Vague {
		return s.Memory
	}
	return s.Log
}

// clean makes a copy whose words are safe to print and within the limits. It is nil if the IDs are none: a report with them would be invalid, and
// be made again and again.
func (s *Signature) clean() *Signature {
	if s == nil {
		return nil
	}
	c := *s
	c.Frames = []string{}
	for _, f := range s.Frames[:min(len(s.Frames), maxSignatureFrames)] {
		c.Frames = append(c.Frames, clean(f, maxSignatureFrame))
	}
	if !c.valid() {
		return nil
	}
	return &c
}

// valid reports whether all values are in range. A missing signature is valid.
func (s *Signature) valid() bool {
	if s == nil {
		return true
	}
	for _, id := range []string{s.ID, s.Coarse} {
		if len(id) != signatureLen || !ValidID(id) {
			return false
		}
	}
	for _, f := range s.Frames {
		if f != clean(f, maxSignatureFrame) {
			return false
		}
	}
	return len(s.Frames) <= maxSignatureFrames
}
