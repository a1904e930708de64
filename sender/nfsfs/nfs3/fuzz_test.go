package nfs3

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/vmware/go-nfs-client/nfs"
	"github.com/vmware/go-nfs-client/nfs/rpc"
	"github.com/vmware/go-nfs-client/nfs/xdr"
)

// FuzzRecord reads records of any bytes. What is read is no longer than what was sent.
func FuzzRecord(f *testing.F) {
	f.Add([]byte{0x80, 0, 0, 4, 1, 2, 3, 4})
	f.Add([]byte{0, 0, 0, 1, 9, 0x80, 0, 0, 1, 8})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add(bytes.Repeat([]byte{0}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		record, err := readRecord(bytes.NewReader(b))
		if err != nil && record != nil {
			t.Fatal("a record and an error")
		}
		if len(record) > len(b) {
			t.Fatalf("%d bytes of %d", len(record), len(b))
		}
	})
}

// FuzzAnswers lets a server answer every procedure with the same bytes.
func FuzzAnswers(f *testing.F) {
	add := func(values ...any) {
		b := new(bytes.Buffer)
		for _, v := range values {
			if err := xdr.Write(b, v); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(b.Bytes())
	}
	ok := []any{uint32(msgReply), uint32(0), rpc.AuthNull, uint32(0), uint32(0)}
	attr := nfs.PostOpAttr{IsSet: true, Attr: nfs.Fattr{Type: nfs.NF3Reg, Filesize: 1 << 63}}
	add(append(ok, attr.Attr)...)
	add(append(ok, []byte("handle"), attr, attr)...)
	add(append(ok, nfs.PostOpFH3{IsSet: true, FH: []byte("handle")}, attr, nfs.WccData{})...)
	add(append(ok, attr, uint32(3), true, []byte("abc"))...)
	add(append(ok, nfs.WccData{}, uint32(3), uint32(0), uint64(1))...)
	add(append(ok, attr, uint64(1), uint32(1), uint64(1), "name", uint64(2), uint32(0), true)...)
	add(append(ok, nfs.FSInfo{RTPref: 1 << 31})...)
	add(append(ok, []byte("handle"), []uint32{1, 2})...)
	add(uint32(msgReply), uint32(1), uint32(1), uint32(2))
	add(uint32(msgReply), uint32(0), rpc.Auth{Body: make([]byte, 9)}, uint32(2))
	f.Fuzz(func(t *testing.T, answer []byte) {
		near, far := net.Pipe()
		c := &Client{c: newConn(near, rpc.AuthNull, time.Minute), Root: FH("root"), ReadLen: 16, WriteLen: 16}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				call, err := readRecord(far)
				if err != nil {
					return
				}
				record := append(call[:4:4], answer...)
				if _, err := far.Write(append(binary.BigEndian.AppendUint32(nil, lastFragment|uint32(len(record))), record...)); err != nil {
					return
				}
			}
		}()
		everyCall(t, c)
		c.Close()
		_ = far.Close()
		<-done
	})
}

// everyCall does every call, whatever it returns.
func everyCall(t *testing.T, c *Client) {
	t.Helper()
	file := c.File(c.Root)
	p := make([]byte, 16)
	if n, err := file.ReadAt(p, 0); n < 0 || n > len(p) || n < len(p) && err == nil {
		t.Fatalf("read %d, %v", n, err)
	}
	if n, err := file.WriteAt(p, 0); n < 0 || n > len(p) || n < len(p) && err == nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if size, err := file.Size(); err == nil && size < 0 {
		t.Fatalf("size %d", size)
	}
	if free, err := c.Free(c.Root); err == nil && free < 0 {
		t.Fatalf("%d bytes free", free)
	}
	_, _ = file.Sync(), file.Truncate(1)
	_, _, _ = c.Lookup(c.Root, "x")
	_, _ = c.Create(c.Root, "x", 0o640, false)
	_, _ = c.ReadDir(c.Root)
	_, _ = c.Mkdir(c.Root, "x", 0o750), c.fsinfo()
	_, _ = new(Config).mnt(c.c, "/x")
	if c.ReadLen < minTransfer && c.ReadLen != 16 || c.ReadLen > MaxTransfer || c.WriteLen > MaxTransfer {
		t.Fatalf("lengths %d and %d", c.ReadLen, c.WriteLen)
	}
}
