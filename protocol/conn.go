package protocol

import (
	"bufio"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/corehaul/corehaul/mem"
)

// Subsystem is the name by which SSH servers know the protocol.
const Subsystem = "corehaul"

const (
	// readBuffer holds control messages; large payloads bypass it.
	readBuffer = 16 << 10
	// writeBuffer collects a header and the first part of a payload, so that small
	// messages are one write and one TLS record.
	writeBuffer = 16 << 10
	// maxSpare is how many released chunks a Conn keeps for its next reads.
	maxSpare = 4
)

// Conn sends and receives the messages of one session over a byte stream.
//
// One goroutine may call Read. Any goroutine may call Write, Release, KeepAlive, Shutdown and Close. Each direction
// repeats its first error. A Conn refuses messages, also its own, that the state machine of PROTOCOL.md does not
// allow.
//
// Conn sets no deadlines: KeepAlive detects a dead peer, and closing the stream ends everything.
type Conn struct {
	rw    *meter
	side  Side
	order *order
	local bool // rw is one end of a Pipe

	rmu     sync.Mutex // between Read and the drain of Shutdown
	r       *bufio.Reader
	head    [headerLen]byte
	buf     []byte      // payload of the message last read
	ranges  []mem.Range // of the RAM last read
	readErr error

	wmu      sync.Mutex
	w        *bufio.Writer
	wbuf     []byte
	writeErr error

	spareMu sync.Mutex
	spare   []*Chunk

	pings chan uint64  // tokens to be answered by KeepAlive
	alive atomic.Int32 // running KeepAlives
	quiet atomic.Bool  // Shutdown has begun
}

// NewConn returns one side of a connection over rw. If rw is an io.Closer, Close closes it.
func NewConn(rw io.ReadWriter, side Side) *Conn {
	m := newMeter(rw)
	_, local := rw.(inProcess)
	return &Conn{
		rw: m, side: side, order: newOrder(), local: local,
		r: bufio.NewReaderSize(m, readBuffer), w: bufio.NewWriterSize(m, writeBuffer),
		pings: make(chan uint64, 1),
	}
}

// BytesRead counts the bytes read from the stream so far.
func (c *Conn) BytesRead() uint64 { return c.rw.read.Load() }

// BytesWritten counts the bytes written to the stream so far.
func (c *Conn) BytesWritten() uint64 { return c.rw.wrote.Load() }

// Params returns the facts of HELLO after it has passed.
func (c *Conn) Params() (p Params, ok bool) { return c.order.facts() }

// Read returns the next message. The error is io.EOF if the peer closed the stream between two messages. It is an
// [Error] for an ERROR message (Remote), or for a message that violates the protocol (send it to the peer with
// Shutdown). Otherwise it is the stream's error. Read handles PING and PONG and does not return them.
//
// Byte slices and ranges of the message are valid until the next Read, a Chunk until its release.
func (c *Conn) Read() (Message, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	for c.readErr == nil {
		m, err := c.readMessage()
		if err != nil {
			c.readErr = err
			break
		}
		if m != nil {
			return m, nil
		}
	}
	return nil, c.readErr
}

// readMessage returns nil for messages that are not for the caller.
func (c *Conn) readMessage() (Message, error) {
	h, err := c.readHeader()
	if err != nil {
		return nil, err
	}
	if h.typ == TypeChunk {
		return c.readChunk(h)
	}
	if c.buf, err = c.readPayload(h, c.buf); err != nil {
		return nil, err
	}
	m, err := c.decode(h.typ, c.buf)
	if err != nil || m == nil {
		return nil, err
	}
	if err := c.order.pass(c.peer(), m); err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *wireError:
		return nil, m.remote()
	case *Ping:
		c.answer(m.Token)
		return nil, nil // Read goes on with the next
	case *Pong:
		return nil, nil // the meter has seen it
	}
	return m, nil
}

func (c *Conn) peer() Side {
	if c.side == Sender {
		return Receiver
	}
	return Sender
}

func (c *Conn) readHeader() (header, error) {
	switch _, err := io.ReadFull(c.r, c.head[:]); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return header{}, Errorf(CodeBadFrame, "stream ends in a frame header: %w", err)
	case err != nil:
		return header{}, err
	}
	return parseHeader(c.head[:], c.peer())
}

// readPayload reads the payload into buf or a larger buffer, checks the frame, and returns the buffer.
func (c *Conn) readPayload(h header, buf []byte) ([]byte, error) {
	buf, err := c.readBytes(h, buf)
	if err == nil {
		err = c.compare(h, buf)
	}
	return buf, err
}

// readBytes reads the payload into buf or a larger buffer, and returns the buffer. A buffer grows to twice its size: the chunks
// of a dump differ, and each byte of a new buffer costs a page fault.
func (c *Conn) readBytes(h header, buf []byte) ([]byte, error) {
	if uint64(cap(buf)) < uint64(h.length) {
		buf = make([]byte, max(int(h.length), min(2*cap(buf), int(types[h.typ].limit))))
	}
	buf = buf[:h.length]
	if n, err := io.ReadFull(c.r, buf); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return buf, Errorf(CodeBadFrame, "%s: stream ends after %d of %d bytes: %w", h.typ, n, h.length, io.ErrUnexpectedEOF)
		}
		return buf, err
	}
	return buf, nil
}

// compare compares the checksum of a frame with that of the bytes that it covers.
func (c *Conn) compare(h header, covered []byte) error {
	if sum := checksum(c.head[:8], covered); sum != h.crc {
		return Errorf(CodeBadChecksum, "%s of %d bytes: CRC-32C %08x, the frame says %08x", h.typ, h.length, sum, h.crc)
	}
	return nil
}

func (c *Conn) readChunk(h header) (Message, error) {
	p, ok := c.order.facts()
	if !ok {
		return nil, Errorf(CodeOutOfOrder, "CHUNK before HELLO")
	}
	ch := c.takeChunk()
	var err error
	if ch.frame, err = c.readBytes(h, ch.frame); err == nil && !c.local {
		err = c.compare(h, ch.frame)
	}
	if err == nil {
		err = ch.decode(ch.frame, p)
	}
	if err == nil && c.local {
		err = c.compare(h, ch.frame[:len(ch.frame)-len(ch.Payload)])
	}
	if err == nil {
		err = c.order.pass(c.peer(), ch)
	}
	if err != nil {
		c.Release(ch)
		return nil, err
	}
	return ch, nil
}

func (c *Conn) takeChunk() *Chunk {
	c.spareMu.Lock()
	defer c.spareMu.Unlock()
	if n := len(c.spare); n > 0 {
		ch := c.spare[n-1]
		c.spare = c.spare[:n-1]
		return ch
	}
	return new(Chunk)
}

// Release makes the memory of a chunk of Read available to later reads. The chunk must not be used or released again.
func (c *Conn) Release(ch *Chunk) {
	c.spareMu.Lock()
	defer c.spareMu.Unlock()
	if len(c.spare) < maxSpare {
		c.spare = append(c.spare, ch)
	}
}

// decode returns nil for an unknown type. parseHeader has checked that it may be ignored.
func (c *Conn) decode(t Type, p []byte) (Message, error) {
	m, err := decodeMessage(t, p, c.ranges)
	if ram, ok := m.(*RAM); ok {
		c.ranges = ram.Ranges[:0]
	}
	return m, err
}

// decodeMessage decodes every message except CHUNK. It may use the memory of scratch.
func decodeMessage(t Type, p []byte, scratch []mem.Range) (Message, error) {
	switch t {
	case TypeNotes, TypeLog, TypePlan:
		return decodePiece(t, p)
	case TypeRAM:
		ranges, err := decodeRAM(p, scratch[:0])
		if err != nil {
			return nil, err
		}
		return &RAM{Ranges: ranges}, nil
	case TypeAck:
		m := new(Ack)
		if err := m.decode(p); err != nil {
			return nil, err
		}
		return m, nil
	case TypePing, TypePong:
		return decodePing(t, p)
	}
	m := newControl(t)
	if m == nil {
		return nil, nil // an unknown type that may be ignored
	}
	if err := decodeControl(m, p); err != nil {
		return nil, err
	}
	return m, nil
}

func decodePiece(t Type, p []byte) (Message, error) {
	if err := checkPiece(p, t); err != nil {
		return nil, err
	}
	switch t {
	case TypeNotes:
		return &Notes{Data: p}, nil
	case TypeLog:
		return &Log{Data: p}, nil
	}
	return &Plan{Data: p}, nil
}

func decodePing(t Type, p []byte) (Message, error) {
	token, err := decodeToken(t, p)
	if err != nil {
		return nil, err
	}
	if t == TypePing {
		return &Ping{Token: token}, nil
	}
	return &Pong{Token: token}, nil
}

// Write sends a message and returns when the stream has accepted all of it. If the protocol does not allow the
// message, the error is an Error and the connection stays usable. Write repeats any other error. If the peer refused
// the session, Read returns the reason.
//
// Texts for people inside m are made printable in place.
func (c *Conn) Write(m Message) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.write(m)
}

// WriteError sends an ERROR message: an [Error], or CodeInternal without the text of any other error, which may
// contain paths and addresses. It does not end the connection; see Shutdown.
func (c *Conn) WriteError(err error) error { return c.Write(wireErrorOf(err)) }

// write needs wmu.
func (c *Conn) write(m Message) error {
	if c.writeErr != nil {
		return c.writeErr
	}
	head, tail, err := c.encode(m)
	if err != nil {
		return err
	}
	if err := c.order.pass(c.side, m); err != nil {
		return err
	}
	c.writeErr = c.writeFrame(head, tail)
	return c.writeErr
}

// encode returns the frame in two parts, so that a chunk's pages are not copied.
func (c *Conn) encode(m Message) (head, tail []byte, err error) {
	p, _ := c.order.facts()
	head = append(c.wbuf[:0], make([]byte, headerLen)...)
	if ch, ok := m.(*Chunk); ok {
		head, err = ch.appendHead(head, p)
		tail = ch.Payload
	} else {
		head, err = m.appendPayload(head, p)
	}
	if err != nil {
		return nil, nil, err
	}
	c.wbuf = head
	length := uint64(len(head)) - headerLen + uint64(len(tail))
	if limit := types[m.Type()].limit; length > uint64(limit) {
		return nil, nil, Errorf(CodeTooLarge, "%s: %d bytes above %d", m.Type(), length, limit)
	}
	h := header{typ: m.Type(), length: uint32(length)} //nolint:gosec // at most the limit of its type
	if c.local {
		h.put(head, head[headerLen:]) // see Pipe
	} else {
		h.put(head, head[headerLen:], tail)
	}
	return head, tail, nil
}

func (c *Conn) writeFrame(head, tail []byte) error {
	if _, err := c.w.Write(head); err != nil {
		return err
	}
	if _, err := c.w.Write(tail); err != nil {
		return err
	}
	return c.w.Flush()
}

// Close closes the stream at once. Reads and writes that wait return with an error.
func (c *Conn) Close() error { return c.rw.close() }

// halfCloser is what TCP, TLS and SSH channels can do.
type halfCloser interface{ CloseWrite() error }

// Shutdown ends the session. It sends err to the peer (unless err is nil, the peer's own, or of the stream), waits at
// most linger for the peer to close its end, and closes the stream. Without the wait, a TCP peer that is still
// sending would get a reset and lose the message. linger also bounds the sending. A concurrent Read gets messages
// that arrive meanwhile, or they are lost; Read ends with io.EOF or an error.
func (c *Conn) Shutdown(err error, linger time.Duration) error {
	c.quiet.Store(true)
	timer := time.AfterFunc(linger, func() { _ = c.rw.close() }) // its error comes from the second close
	defer timer.Stop()
	if tellPeer(err) {
		if werr := c.WriteError(err); werr != nil {
			return errors.Join(werr, c.rw.close())
		}
	}
	if hc, ok := c.rw.rw.(halfCloser); ok {
		if herr := hc.CloseWrite(); herr == nil {
			c.drain()
		}
	}
	return c.rw.close()
}

// tellPeer reports whether the peer should get err.
func tellPeer(err error) bool {
	if err == nil || errors.Is(err, io.EOF) {
		return false
	}
	e, ok := errors.AsType[*Error](err)
	return !ok || !e.Remote
}

// drain discards data of the peer until it closes or linger is over. It reads valid frames as frames, so that a
// concurrent Read returns the peer's last ERROR.
func (c *Conn) drain() {
	for {
		if _, err := c.Read(); err != nil {
			break
		}
	}
	c.rmu.Lock()
	defer c.rmu.Unlock()
	buf := make([]byte, 4<<10)
	for {
		if _, err := c.rw.Read(buf); err != nil {
			return
		}
	}
}
