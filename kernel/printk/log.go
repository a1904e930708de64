package printk

import (
	"encoding/binary"
	"iter"

	"github.com/corehaul/corehaul/kernel"
	"github.com/corehaul/corehaul/mem"
)

// The buffer of variable-length records (kernel/printk/printk.c, 3.5 to 5.9). A record is a header, its text, and a
// dictionary, together len bytes. If the next record did not fit before the end of the buffer, a header with len 0
// says that it lies at the start. The members of the header, in order:
//
//	u64 ts_nsec; u16 len; u16 text_len; u16 dict_len;
//	u8 facility; u8 flags:5, level:3; u32 caller_id (5.1 and later, by configuration)
const (
	// maxLogLen is LOG_BUF_LEN_MAX.
	maxLogLen = 1 << 31
	dictWidth = 2 // of dict_len, behind which facility, flags and level lie
)

// oldLog is a buffer of variable-length records.
type oldLog struct {
	k           *kernel.Kernel
	buf         mem.VirtAddr
	bufLen      uint64
	first, next uint64 // offset of the oldest record, and the end of the newest

	header                    uint64 // size of the header
	tsNsec, length, textLen   uint64 // offsets in it
	dictLen, caller           uint64
	hasDictLen, hasCallerInfo bool
}

func logRecords(k *kernel.Kernel) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		l, err := openLog(k)
		if err != nil {
			yield(Record{}, err)
			return
		}
		l.records(yield)
	}
}

// openLog finds the buffer and its ends.
func openLog(k *kernel.Kernel) (*oldLog, error) {
	s := keys{info: k.Info()}
	l := &oldLog{k: k}
	name := "printk_log"
	if _, ok := k.Info().Size(name); !ok {
		name = "log" // before 3.11 (62e32ac3505a)
	}
	l.header = s.size(name)
	l.tsNsec = s.offset(name+".ts_nsec", 8, l.header)
	l.length = s.offset(name+".len", 2, l.header)
	l.textLen = s.offset(name+".text_len", 2, l.header)
	buf, bufLen := s.symbol("log_buf"), s.symbol("log_buf_len")
	first, next := s.symbol("log_first_idx"), s.symbol("log_next_idx")
	if s.err != nil {
		return nil, s.err
	}
	optional := keys{info: k.Info()}
	l.dictLen = optional.offset(name+".dict_len", dictWidth+2, l.header)
	l.hasDictLen = optional.err == nil
	optional.err = nil
	l.caller = optional.offset(name+".caller_id", 4, l.header)
	l.hasCallerInfo = optional.err == nil

	p, err := k.ReadUint64(mem.VirtAddr(buf))
	if err != nil {
		return nil, err
	}
	l.buf = mem.VirtAddr(p)
	for _, v := range []struct {
		symbol uint64
		value  *uint64
	}{{bufLen, &l.bufLen}, {first, &l.first}, {next, &l.next}} {
		n, err := k.ReadUint32(mem.VirtAddr(v.symbol))
		if err != nil {
			return nil, err
		}
		*v.value = uint64(n)
	}
	switch {
	case l.bufLen < l.header || l.bufLen > maxLogLen:
		return nil, &CorruptError{What: "log_buf_len", Addr: mem.VirtAddr(bufLen), Value: l.bufLen}
	case l.first >= l.bufLen:
		return nil, &CorruptError{What: "log_first_idx", Addr: mem.VirtAddr(first), Value: l.first}
	case l.next > l.bufLen:
		return nil, &CorruptError{What: "log_next_idx", Addr: mem.VirtAddr(next), Value: l.next}
	}
	return l, nil
}

// records yields the records from the oldest to the newest. It ends because each is longer than a header and the
// buffer's end is passed at most once.
func (l *oldLog) records(yield func(Record, error) bool) {
	header := make([]byte, l.header)
	var text []byte
	wrapped := l.first <= l.next // whether the end of the buffer was passed
	at := l.first
	for seq := uint64(0); at != l.next; {
		// The newest record ends at next. No record follows.
		end := l.bufLen
		if wrapped {
			end = l.next
		}
		n, err := l.readHeader(header, at, end)
		if err != nil {
			yield(Record{}, err)
			return
		}
		if n == 0 && !wrapped {
			at, wrapped = 0, true
			continue
		}
		if n < l.header || at+n > end {
			yield(Record{}, &CorruptError{What: "length of a record", Addr: l.buf + mem.VirtAddr(at), Value: n})
			return
		}
		rec, err := l.record(header, at, n, &text)
		rec.Seq = seq
		seq++
		if !yield(rec, err) {
			return
		}
		at += n
		if at == l.bufLen && !wrapped {
			at, wrapped = 0, true
		}
	}
}

// readHeader reads the header of the record at offset at and returns its length, or 0 if the next record lies at the
// start.
func (l *oldLog) readHeader(header []byte, at, end uint64) (uint64, error) {
	clear(header)
	have := min(l.header, end-min(at, end))
	// A mark needs room for its length only.
	if have < l.length+2 {
		return 0, &CorruptError{What: "offset of a record", Addr: l.buf + mem.VirtAddr(at), Value: at}
	}
	err := l.k.ReadVirt(header[:have], l.buf+mem.VirtAddr(at))
	return uint64(binary.LittleEndian.Uint16(header[l.length:])), err
}

// record reads the record of n bytes at offset at, which has this header.
func (l *oldLog) record(header []byte, at, n uint64, buf *[]byte) (Record, error) {
	rec := Record{TSNsec: binary.LittleEndian.Uint64(header[l.tsNsec:])}
	if l.hasDictLen {
		rec.Facility = header[l.dictLen+dictWidth]
		flags := header[l.dictLen+dictWidth+1]
		rec.Flags, rec.Level = flags&0x1f, flags>>5
	}
	if l.hasCallerInfo {
		rec.CallerID = binary.LittleEndian.Uint32(header[l.caller:])
	}
	length := uint64(binary.LittleEndian.Uint16(header[l.textLen:]))
	if length > n-l.header {
		return Record{}, &CorruptError{What: "text length of a record", Addr: l.buf + mem.VirtAddr(at), Value: length}
	}
	if uint64(cap(*buf)) < length || *buf == nil {
		*buf = make([]byte, 0, max(1<<10, length)) // length is below 64 KiB
	}
	rec.Text = (*buf)[:length]
	if err := l.k.ReadVirt(rec.Text, l.buf+mem.VirtAddr(at+l.header)); err != nil {
		return Record{}, err
	}
	return rec, nil
}

// newest yields the areas of the records, newest first.
func (l *oldLog) newest(yield func(Area) bool) {
	back := func(from, to uint64) bool {
		for to > from {
			n := min(to-from, newestStep)
			if to -= n; !yield(Area{l.buf + mem.VirtAddr(to), n}) {
				return false
			}
		}
		return true
	}
	switch {
	case l.first == l.next: // empty, because a full buffer has a gap
	case l.first < l.next:
		back(l.first, l.next)
	case back(0, l.next):
		back(l.first, l.bufLen)
	}
}
