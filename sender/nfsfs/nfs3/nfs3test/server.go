// Package nfs3test is an NFS server in memory, for tests. Unlike a real one it fails on
// demand: it restarts, forgets what was not committed, answers late, wrongly or not at
// all. It speaks portmapper, MOUNT and NFS on one port.
package nfs3test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/vmware/go-nfs-client/nfs"
	"github.com/vmware/go-nfs-client/nfs/rpc"
	"github.com/vmware/go-nfs-client/nfs/xdr"
)

// Export is the directory that the server exports.
const Export = "/export"

// A Deed is what the server does with a call.
type Deed int

// Deeds. A call of NFS that fails with a status does not take place.
const (
	Do       Deed = iota
	Jukebox       // answer NFS3ERR_JUKEBOX
	DoAndCut      // do it, and end the connection instead of an answer
	Cut           // end the connection before it
	Silence       // do it, and answer nothing
	Garble        // do it, and answer half of the result
	Crash         // lose all data that was not committed, as a power cut would, and end the connection before the call
	Amnesia       // lose all data that was not committed, and do the call; only the write verifier tells
	Deny          // answer that the credentials are bad, as Linux does while it knows no export for a client
)

// Call is a call of NFS.
type Call struct {
	Proc uint32
	// UID and GID are those of its credentials.
	UID, GID uint32
	// N counts the calls of this procedure, from 1.
	N int
}

// Behaviour is what a server does unlike others.
type Behaviour struct {
	// Hook, unless nil, says what to do with a call, and which nfsstat3 to answer: not 0 means that the call fails.
	Hook func(Call) (Deed, uint32)
	// ShortWrites and ShortReads bound what one call transfers, in bytes. 0 means no bound.
	ShortWrites, ShortReads uint32
	// Fragment is the length of the fragments of answers, 0 for one fragment.
	Fragment int
	// Exported is the exported directory, unless it is Export.
	Exported string
	// MountStatus, unless nil, returns the answer to MOUNT of the exported directory.
	MountStatus func() uint32
	// Mapped, unless nil, returns the port that the portmapper names. 0 means that it knows none.
	Mapped func() uint32
}

// Server is a running server.
type Server struct {
	// Addr is HOST:PORT.
	Addr string
	Behaviour

	l     net.Listener
	mu    sync.Mutex
	conns map[net.Conn]bool
	tree  *tree
	count map[uint32]int
	work  sync.WaitGroup
}

// Start starts a server on a TCP port, which ends with the test.
func Start(tb testing.TB, b Behaviour) *Server {
	tb.Helper()
	s := New(tb, b)
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s.l, s.Addr = l, l.Addr().String()
	s.work.Go(s.accept)
	tb.Cleanup(func() { _ = l.Close() }) // before that of New
	return s
}

// New makes a server that only Dial reaches, without a socket. It ends with the test.
func New(tb testing.TB, b Behaviour) *Server {
	tb.Helper()
	s := &Server{Behaviour: b, conns: map[net.Conn]bool{}, tree: newTree(), count: map[uint32]int{}}
	tb.Cleanup(func() {
		s.CutAll()
		s.work.Wait()
	})
	return s
}

// Dial connects to the server, for nfs3.Config. Any address will do.
func (s *Server) Dial(context.Context, *net.Dialer, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	s.begin(far)
	return near, nil
}

// begin serves a connection.
func (s *Server) begin(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = true
	s.work.Go(func() { s.serve(c) })
}

// Port is the port of all services.
func (s *Server) Port() uint16 {
	if s.l == nil {
		return 1 // Dial does not look at it
	}
	addr, _ := s.l.Addr().(*net.TCPAddr)
	return uint16(addr.Port)
}

func (s *Server) accept() {
	for {
		c, err := s.l.Accept()
		if err != nil {
			return
		}
		s.begin(c)
	}
}

// CutAll ends all connections.
func (s *Server) CutAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
}

// Forget loses all data that was not committed. Only the write verifier tells.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tree.powerCut()
}

// ReadFile returns what is durable of a file, by its path below the exported directory.
func (s *Server) ReadFile(name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tree.durable(name)
}

// Add adds a file, or a symbolic link, to the exported directory.
func (s *Server) Add(name string, link bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tree.add(s.tree.nodes[rootID], name, false).link = link
}

// Walk calls f with the path below the exported directory and the durable contents of each file.
func (s *Server) Walk(f func(name string, data []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tree.walk(s.tree.nodes[rootID], "", f)
}

// Count returns how many calls of a procedure there were.
func (s *Server) Count(proc uint32) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[proc]
}

func (s *Server) serve(c net.Conn) {
	defer func() {
		_ = c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	for {
		var mark [4]byte
		if _, err := io.ReadFull(c, mark[:]); err != nil {
			return
		}
		record := make([]byte, binary.BigEndian.Uint32(mark[:])&^(1<<31))
		if _, err := io.ReadFull(c, record); err != nil {
			return
		}
		answer, err := s.answer(record)
		if err != nil {
			return
		}
		if answer != nil && s.send(c, answer) != nil {
			return
		}
	}
}

func (s *Server) send(c net.Conn, b []byte) error {
	size := s.Fragment
	if size == 0 {
		size = len(b)
	}
	for len(b) > 0 {
		n := min(size, len(b))
		mark := uint32(n)
		if n == len(b) {
			mark |= 1 << 31
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, mark), b[:n]...)); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

var errCut = errors.New("cut")

// answer does a call.
func (s *Server) answer(record []byte) ([]byte, error) {
	r := bytes.NewReader(record)
	var head struct {
		Xid, Type uint32
		rpc.Header
	}
	if err := xdr.Read(r, &head); err != nil {
		return nil, err
	}
	out := new(bytes.Buffer)
	put(out, head.Xid, uint32(1), uint32(0), rpc.AuthNull, uint32(0))
	before := out.Len()
	deed := Do
	switch head.Prog {
	case rpc.PmapProg:
		port := uint32(s.Port())
		if s.Mapped != nil {
			port = s.Mapped()
		}
		put(out, port)
	case nfs.MountProg:
		s.mount(r, out)
	default:
		s.mu.Lock()
		deed = s.nfs(&head.Header, r, out)
		s.mu.Unlock()
	}
	switch deed {
	case Cut, DoAndCut:
		return nil, errCut
	case Silence:
		return nil, nil
	case Deny:
		out.Reset()
		put(out, head.Xid, uint32(1), uint32(1), uint32(1), uint32(1)) // AUTH_BADCRED, RFC 5531, part 9
	case Garble:
		out.Truncate(before + (out.Len()-before)/2)
	}
	return out.Bytes(), nil
}

func (s *Server) mount(r io.Reader, out *bytes.Buffer) {
	var dir string
	_ = xdr.Read(r, &dir) // then it is not the exported one
	status := uint32(0)
	if s.MountStatus != nil {
		status = s.MountStatus()
	}
	switch {
	case dir != cmp.Or(s.Exported, Export):
		put(out, uint32(nfs.MNT3ErrNoEnt))
	case status != 0:
		put(out, status)
	default:
		put(out, uint32(nfs.MNT3Ok), handle(rootID), []uint32{1})
	}
}

// nfs does a call of NFS. mu is held.
func (s *Server) nfs(head *rpc.Header, r io.Reader, out *bytes.Buffer) Deed {
	s.count[head.Proc]++
	deed, status := Do, uint32(0)
	if s.Hook != nil {
		var cred rpc.AuthUnix
		_ = xdr.Read(bytes.NewReader(head.Cred.Body), &cred) // then it has no user
		deed, status = s.Hook(Call{Proc: head.Proc, UID: cred.Uid, GID: cred.Gid, N: s.count[head.Proc]})
	}
	switch deed {
	case Jukebox:
		status = 10008
	case Crash:
		s.tree.powerCut()
		return Cut
	case Amnesia:
		s.tree.powerCut()
	case Cut, Deny:
		return deed
	}
	if status != 0 {
		// The attributes that follow an error are all optional; two words say that there are none.
		put(out, status, uint32(0), uint32(0))
		return deed
	}
	body := new(bytes.Buffer)
	status = s.tree.do(s, head.Proc, r, body)
	put(out, status)
	if status == 0 {
		out.Write(body.Bytes())
	} else {
		put(out, uint32(0), uint32(0))
	}
	return deed
}

// put writes values as XDR.
func put(w io.Writer, values ...any) {
	for _, v := range values {
		if err := xdr.Write(w, v); err != nil {
			panic(err) // a mistake in this package
		}
	}
}
