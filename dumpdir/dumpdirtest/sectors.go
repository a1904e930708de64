package dumpdirtest

// sectors is the sectors of a disk that a file takes: those that were written or allocated. All others are holes, and
// a write there needs room.
type sectors struct {
	taken []bool
	count int64
}

// take takes the sectors of [off, off+n).
func (s *sectors) take(off, n int64) {
	if n <= 0 {
		return
	}
	end := sectorsOf(off + n)
	if more := end - int64(len(s.taken)); more > 0 {
		s.taken = append(s.taken, make([]bool, more)...)
	}
	for i := off / sectorLen; i < end; i++ {
		if !s.taken[i] {
			s.taken[i] = true
			s.count++
		}
	}
}

// fits returns how many of n bytes from off on have a sector, if free more can be taken.
func (s *sectors) fits(off, n, free int64) int64 {
	for i := off / sectorLen; i < sectorsOf(off+n); i++ {
		if i < int64(len(s.taken)) && s.taken[i] {
			continue
		}
		if free--; free < 0 {
			return max(0, i*sectorLen-off)
		}
	}
	return n
}

// cut gives back the sectors behind size.
func (s *sectors) cut(size int64) {
	for i := sectorsOf(size); i < int64(len(s.taken)); i++ {
		if s.taken[i] {
			s.count--
		}
	}
	s.taken = s.taken[:min(sectorsOf(size), int64(len(s.taken)))]
}

// sectorsOf returns how many sectors so many bytes take.
func sectorsOf(n int64) int64 { return (n + sectorLen - 1) / sectorLen }
