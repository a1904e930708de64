package elfcore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/elfcore"
)

// xenGuest returns a file as xl dump-core begins it: sections, one with a note of this name, and no program headers.
func xenGuest(name string) []byte {
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 64+2*64+16-7)...)
	le.PutUint16(b[16:], 4)  // ET_CORE
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint64(b[40:], 64) // e_shoff
	le.PutUint16(b[58:], 64) // e_shentsize
	le.PutUint16(b[60:], 2)  // e_shnum
	section, note := b[2*64:], b[3*64:]
	le.PutUint32(section[4:], 7) // SHT_NOTE
	le.PutUint64(section[24:], 3*64)
	le.PutUint32(note, 4)
	le.PutUint32(note[8:], 0x2000000) // XEN_ELFNOTE_DUMPCORE_NONE
	copy(note[12:], name)
	return b
}

// TestXenGuest: the dump of a Xen guest is valid and not supported. A core without program headers is neither.
func TestXenGuest(t *testing.T) {
	b := xenGuest("Xen")
	_, err := elfcore.New(bytes.NewReader(b), int64(len(b)))
	if !errors.Is(err, vmcore.ErrUnsupported) || !strings.Contains(err.Error(), "Xen guest") {
		t.Errorf("the dump of a guest: %v", err)
	}
	b = xenGuest("GNU")
	if _, err = elfcore.New(bytes.NewReader(b), int64(len(b))); !errors.Is(err, vmcore.ErrCorrupt) {
		t.Errorf("a core without program headers: %v", err)
	}
}
