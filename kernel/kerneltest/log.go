package kerneltest

import "encoding/binary"

// LogHeader is the size of struct printk_log without a caller id.
const LogHeader = 16

// Log writes the log buffer of kernels 3.5 to 5.9 as log_store of
// kernel/printk/printk.c does.
type Log struct {
	Buf                 []byte
	First, Next         uint32
	firstSeq, Sequences uint64 // sequence numbers of the oldest record and of the next
}

// NewLog returns an empty log of size bytes.
func NewLog(size int) *Log { return &Log{Buf: make([]byte, size)} }

// Add writes a record. It reports whether it went to the start of the buffer.
func (l *Log) Add(tsNsec uint64, text, dict string) (wraps bool) {
	size := uint32(LogHeader+len(text)+len(dict)+7) &^ 7
	for l.firstSeq < l.Sequences && !l.hasSpace(size) {
		l.First = l.after(l.First)
		l.firstSeq++
	}
	if int(l.Next+size+LogHeader) > len(l.Buf) {
		clear(l.Buf[l.Next:min(int(l.Next)+LogHeader, len(l.Buf))])
		l.Next, wraps = 0, true
	}
	b := l.Buf[l.Next : l.Next+size]
	clear(b)
	binary.LittleEndian.PutUint64(b, tsNsec)
	binary.LittleEndian.PutUint16(b[8:], uint16(size))
	binary.LittleEndian.PutUint16(b[10:], uint16(len(text)))
	binary.LittleEndian.PutUint16(b[12:], uint16(len(dict)))
	b[15] = 6 << 5
	copy(b[LogHeader:], text)
	copy(b[LogHeader+len(text):], dict)
	l.Next += size
	l.Sequences++
	return wraps
}

// Count returns the number of records in the log.
func (l *Log) Count() int { return int(l.Sequences - l.firstSeq) }

func (l *Log) hasSpace(size uint32) bool {
	free := l.First - l.Next
	if l.Next > l.First || l.firstSeq == l.Sequences {
		free = max(uint32(len(l.Buf))-l.Next, l.First)
	}
	return free >= size+LogHeader
}

func (l *Log) after(at uint32) uint32 {
	n := uint32(binary.LittleEndian.Uint16(l.Buf[at+8:]))
	if n == 0 {
		return uint32(binary.LittleEndian.Uint16(l.Buf[8:]))
	}
	return at + n
}

// InstallLog puts a log buffer into the machine's memory and VMCOREINFO, with the
// structure called name: printk_log, or log before 3.11.
func (m *Machine) InstallLog(l *Log, name string) {
	m.Sizes[name] = LogHeader
	for member, offset := range map[string]uint64{"ts_nsec": 0, "len": 8, "text_len": 10, "dict_len": 12} {
		m.Offsets[name+"."+member] = offset
	}
	at := m.Image(ringAt)
	for i, symbol := range []string{"log_buf", "log_buf_len", "log_first_idx", "log_next_idx"} {
		m.Symbols[symbol] = uint64(at) + uint64(i)*8
	}
	m.WriteVirt(at, Uint64(uint64(m.place(l.Buf))))
	m.WriteVirt(at+8, Uint32(uint32(len(l.Buf))))
	m.WriteVirt(at+16, Uint32(l.First))
	m.WriteVirt(at+24, Uint32(l.Next))
}
