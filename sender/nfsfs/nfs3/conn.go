package nfs3

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/go-nfs-client/nfs/rpc"
	"github.com/vmware/go-nfs-client/nfs/xdr"
)

// MaxTransfer bounds the data of one READ or WRITE, in bytes. Many are in flight, so a fast line gains nothing from more: a dump to
// Ganesha on the same machine was no faster with 1 MiB. On a slow line callers ask for less. maxRecord bounds an answer: this data and
// what stands before it.
const (
	MaxTransfer = 128 << 10
	maxRecord   = MaxTransfer + 4<<10
)

// lastFragment marks the last fragment of a record (RFC 5531, part 11). The other bits are the fragment's length.
const lastFragment = 1 << 31

// maxFragments bounds the fragments of one record.
const maxFragments = 4 << 10

// Types of messages, RFC 5531, part 9.
const (
	msgCall  = 0
	msgReply = 1
)

// LostError means that the connection to the server has ended. What the last calls did is unknown.
type LostError struct{ Err error }

// Error says why the connection ended.
func (e *LostError) Error() string {
	return fmt.Sprintf("the connection to the NFS server ended: %v", e.Err)
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }

// errSilent ends a connection whose server does not answer.
type errSilent time.Duration

func (e errSilent) Error() string {
	return fmt.Sprintf("the server did not answer for %v", time.Duration(e))
}

// errStuck ends a connection whose server answers some calls, but not one.
type errStuck time.Duration

func (e errStuck) Error() string {
	return fmt.Sprintf("the server left a call without an answer for %v, though it answered others", time.Duration(e))
}

// Reasons for which a connection ends. errHungUp takes the place of io.EOF, which means the end of a file to those who read one.
var (
	errClosed = errors.New("it was closed")
	errHungUp = errors.New("the server closed it")
)

// conn is a connection to one RPC service. Many calls may be on their way.
type conn struct {
	nc       net.Conn
	cred     rpc.Auth
	patience time.Duration // the longest time without an answer
	xid      atomic.Uint32
	heard    atomic.Uint64 // counts answers to calls

	wmu  sync.Mutex // held while a record is written
	mu   sync.Mutex
	wait map[uint32]chan []byte
	err  error
	done chan struct{} // closed with err
	read sync.WaitGroup
}

// newConn takes over nc.
func newConn(nc net.Conn, cred rpc.Auth, patience time.Duration) *conn {
	c := &conn{nc: nc, cred: cred, patience: patience, wait: map[uint32]chan []byte{}, done: make(chan struct{})}
	c.xid.Store(uint32(time.Now().UnixNano())) //nolint:gosec // any number will do
	c.read.Go(c.receive)
	return c
}

// callMsg is a call (RFC 5531, part 9) up to its data.
type callMsg struct {
	Xid, Type uint32
	rpc.Header
	Args any
}

// call sends a call and returns the results of its procedure. data, unless nil, follows args as opaque data.
func (c *conn) call(prog, vers, proc uint32, args any, data []byte) ([]byte, error) {
	xid := c.xid.Add(1)
	head := new(bytes.Buffer)
	head.Write(make([]byte, 4)) // the record mark
	msg := &callMsg{Xid: xid, Type: msgCall, Header: rpc.Header{Rpcvers: 2, Prog: prog, Vers: vers, Proc: proc, Cred: c.cred}, Args: args}
	if err := xdr.Write(head, msg); err != nil {
		return nil, err
	}
	if data != nil {
		head.Write(binary.BigEndian.AppendUint32(nil, uint32(len(data)))) //nolint:gosec // at most MaxTransfer
	}
	pad := make([]byte, -len(data)&3)
	length := head.Len() - 4 + len(data) + len(pad)
	binary.BigEndian.PutUint32(head.Bytes(), lastFragment|uint32(length)) //nolint:gosec // far below 2^31
	answer, err := c.exchange(xid, net.Buffers{head.Bytes(), data, pad})
	if err != nil {
		return nil, err
	}
	return results(answer)
}

// exchange sends a record and waits for its answer.
func (c *conn) exchange(xid uint32, record net.Buffers) ([]byte, error) {
	answer := make(chan []byte, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	c.wait[xid] = answer
	c.mu.Unlock()
	defer c.watch()()
	c.wmu.Lock()
	_, err := record.WriteTo(c.nc)
	c.wmu.Unlock()
	if err != nil {
		c.fail(err)
	}
	select {
	case b := <-answer:
		return b, nil
	case <-c.done:
		return nil, c.err
	}
}

// stuckFactor times the patience is how long one call may take while others are answered: a slow line takes its time for all that
// is in flight. A server must not drop a call and keep the connection, but then nothing else would end the wait.
const stuckFactor = 10

// watch ends the connection if no answer to any call comes for the time of patience, or if this call takes stuckFactor times as
// long, until the returned function is called.
func (c *conn) watch() (stop func()) {
	heard, start := c.heard.Load(), time.Now()
	var timer *time.Timer
	ready := make(chan struct{})
	timer = time.AfterFunc(c.patience, func() {
		<-ready
		now := c.heard.Load()
		if now == heard {
			c.fail(errSilent(c.patience))
			return
		}
		if limit := stuckFactor * c.patience; time.Since(start) >= limit {
			c.fail(errStuck(limit))
			return
		}
		heard = now
		timer.Reset(c.patience)
	})
	close(ready)
	return func() { timer.Stop() }
}

// receive hands answers to the calls that wait for them.
func (c *conn) receive() {
	for {
		record, err := readRecord(c.nc)
		if err != nil {
			c.fail(err)
			return
		}
		if len(record) < 4 {
			c.fail(errShort)
			return
		}
		xid := binary.BigEndian.Uint32(record)
		c.mu.Lock()
		answer := c.wait[xid]
		delete(c.wait, xid)
		c.mu.Unlock()
		if answer != nil { // nobody asked for others, and they are no sign of life
			c.heard.Add(1)
			answer <- record
		}
	}
}

// fail ends the connection. The first error stays.
func (c *conn) fail(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errHungUp
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = &LostError{err}
		close(c.done)
		_ = c.nc.Close() // it is of no use any more
	}
}

// close ends the connection and waits until nothing uses it.
func (c *conn) close() {
	c.fail(errClosed)
	c.read.Wait()
}

// readRecord reads the fragments of one record.
func readRecord(r io.Reader) ([]byte, error) {
	var record []byte
	var mark [4]byte
	for range maxFragments {
		if _, err := io.ReadFull(r, mark[:]); err != nil {
			return nil, err
		}
		word := binary.BigEndian.Uint32(mark[:])
		n := int(word &^ lastFragment)
		if n > maxRecord-len(record) {
			return nil, fmt.Errorf("the server sends an answer of more than %d bytes", maxRecord)
		}
		start := len(record)
		record = append(record, make([]byte, n)...)
		if _, err := io.ReadFull(r, record[start:]); err != nil {
			return nil, err
		}
		if word&lastFragment != 0 {
			return record, nil
		}
	}
	return nil, fmt.Errorf("the server sends an answer in more than %d fragments", maxFragments)
}
