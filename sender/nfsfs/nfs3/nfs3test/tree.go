package nfs3test

import (
	"bytes"
	"encoding/binary"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"

	"github.com/vmware/go-nfs-client/nfs"
	"github.com/vmware/go-nfs-client/nfs/xdr"
)

const rootID = 1

// tree is the file system. Names are durable at once, data once it is committed.
type tree struct {
	nodes map[uint64]*node
	next  uint64
	verf  uint64
}

type node struct {
	id           uint64
	names        map[string]*node // of a directory
	data, stable []byte           // of a file
	link         bool             // a symbolic link
}

func newTree() *tree {
	return &tree{nodes: map[uint64]*node{rootID: {id: rootID, names: map[string]*node{}}}, next: rootID + 1, verf: 1}
}

func handle(id uint64) []byte { return binary.BigEndian.AppendUint64([]byte("test"), id) }

func (t *tree) node(fh []byte) *node {
	if len(fh) != 12 {
		return nil
	}
	return t.nodes[binary.BigEndian.Uint64(fh[4:])]
}

func (t *tree) powerCut() {
	t.verf++
	for _, n := range t.nodes {
		n.data = bytes.Clone(n.stable)
	}
}

func (t *tree) durable(name string) ([]byte, error) {
	n := t.nodes[rootID]
	for _, part := range bytes.Split([]byte(path.Clean(name)), []byte("/")) {
		if n = n.names[string(part)]; n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return bytes.Clone(n.stable), nil
}

func (t *tree) walk(n *node, name string, f func(string, []byte) error) error {
	if n.names == nil {
		return f(name, n.stable)
	}
	for _, base := range slices.Sorted(maps.Keys(n.names)) {
		if err := t.walk(n.names[base], path.Join(name, base), f); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) add(dir *node, name string, isDir bool) *node {
	n := &node{id: t.next}
	if isDir {
		n.names = map[string]*node{}
	}
	t.next++
	t.nodes[n.id], dir.names[name] = n, n
	return n
}

func (n *node) attr() nfs.Fattr {
	a := nfs.Fattr{Type: nfs.NF3Reg, FileMode: 0o640, Nlink: 1, Filesize: uint64(len(n.data)), Fileid: n.id}
	switch {
	case n.names != nil:
		a.Type = nfs.NF3Dir
	case n.link:
		a.Type = nfs.NF3Lnk
	}
	return a
}

func (n *node) post() nfs.PostOpAttr { return nfs.PostOpAttr{IsSet: true, Attr: n.attr()} }

func (n *node) resize(size uint64) {
	if size <= uint64(len(n.data)) {
		n.data = n.data[:size]
		return
	}
	n.data = append(n.data, make([]byte, size-uint64(len(n.data)))...)
}

// do does a call and returns its nfsstat3.
func (t *tree) do(s *Server, proc uint32, r io.Reader, out *bytes.Buffer) uint32 {
	var fh []byte
	if xdr.Read(r, &fh) != nil {
		return nfs.NFS3ErrInval
	}
	n := t.node(fh)
	if n == nil {
		return nfs.NFS3ErrStale
	}
	switch proc {
	case 1: // GETATTR
		put(out, n.attr())
	case 2: // SETATTR
		var attr nfs.Sattr3
		_ = xdr.Read(r, &attr)
		if attr.Size.SetIt {
			n.resize(attr.Size.Size)
			n.stable = bytes.Clone(n.data)
		}
		put(out, nfs.WccData{})
	case nfs.NFSProc3Read:
		return t.read(s, n, r, out)
	case nfs.NFSProc3Write:
		return t.write(s, n, r, out)
	case 16: // READDIR
		return t.readDir(n, r, out)
	case 18: // FSSTAT
		put(out, n.post(), uint64(1<<40), uint64(1<<39), uint64(1<<38), [3]uint64{}, uint32(0))
	case nfs.NFSProc3FSInfo:
		put(out, nfs.FSInfo{RTMax: 1 << 20, RTPref: 1 << 20, WTMax: 1 << 20, WTPref: 1 << 20, DTPref: 4096, Size: 1 << 60})
	case nfs.NFSProc3Commit:
		n.stable = bytes.Clone(n.data)
		put(out, nfs.WccData{}, t.verf)
	default:
		return t.name(proc, n, r, out)
	}
	return 0
}

func (t *tree) read(s *Server, n *node, r io.Reader, out *bytes.Buffer) uint32 {
	var args struct {
		Off   uint64
		Count uint32
	}
	_ = xdr.Read(r, &args)
	if s.ShortReads != 0 {
		args.Count = min(args.Count, s.ShortReads)
	}
	from := min(args.Off, uint64(len(n.data)))
	to := min(from+uint64(args.Count), uint64(len(n.data)))
	put(out, n.post(), uint32(to-from), to == uint64(len(n.data)), n.data[from:to])
	return 0
}

func (t *tree) write(s *Server, n *node, r io.Reader, out *bytes.Buffer) uint32 {
	var args struct {
		Off        uint64
		Count, How uint32
		Data       []byte
	}
	_ = xdr.Read(r, &args)
	if s.ShortWrites != 0 {
		args.Data = args.Data[:min(len(args.Data), int(s.ShortWrites))]
	}
	if end := args.Off + uint64(len(args.Data)); end > uint64(len(n.data)) {
		n.resize(end)
	}
	copy(n.data[args.Off:], args.Data)
	put(out, nfs.WccData{}, uint32(len(args.Data)), uint32(0), t.verf)
	return 0
}

func (t *tree) readDir(n *node, r io.Reader, out *bytes.Buffer) uint32 {
	var args struct{ Cookie, Verf uint64 }
	_ = xdr.Read(r, &args)
	names := append([]string{".", ".."}, slices.Sorted(maps.Keys(n.names))...)
	put(out, n.post(), uint64(7))
	const most = 5 // so that a directory takes a few calls
	end := min(int(args.Cookie)+most, len(names))
	for i := int(args.Cookie); i < end; i++ {
		put(out, uint32(1), uint64(i), names[i], uint64(i+1))
	}
	put(out, uint32(0), end == len(names))
	return 0
}

// name does the calls that have a name in the directory n.
func (t *tree) name(proc uint32, n *node, r io.Reader, out *bytes.Buffer) uint32 {
	var name string
	if xdr.Read(r, &name) != nil || n.names == nil {
		return nfs.NFS3ErrNotDir
	}
	there := n.names[name]
	switch proc {
	case nfs.NFSProc3Lookup:
		if there == nil {
			return nfs.NFS3ErrNoEnt
		}
		put(out, handle(there.id), there.post(), n.post())
	case nfs.NFSProc3Create:
		var how uint32
		_ = xdr.Read(r, &how)
		if there != nil && how != 0 {
			return nfs.NFS3ErrExist
		}
		if there == nil {
			there = t.add(n, name, false)
		}
		there.data, there.stable = nil, nil
		put(out, nfs.PostOpFH3{}, nfs.PostOpAttr{}, nfs.WccData{}) // a server may leave the handle to LOOKUP
	case nfs.NFSProc3Mkdir:
		if there != nil {
			return nfs.NFS3ErrExist
		}
		d := t.add(n, name, true)
		put(out, nfs.PostOpFH3{IsSet: true, FH: handle(d.id)}, d.post(), nfs.WccData{})
	case nfs.NFSProc3Remove:
		if there == nil {
			return nfs.NFS3ErrNoEnt
		}
		delete(n.names, name)
		delete(t.nodes, there.id)
		put(out, nfs.WccData{})
	case 14: // RENAME
		var to nfs.Diropargs3
		_ = xdr.Read(r, &to)
		dir := t.node(to.FH)
		if there == nil || dir == nil {
			return nfs.NFS3ErrNoEnt
		}
		delete(n.names, name)
		dir.names[to.Filename] = there
		put(out, nfs.WccData{}, nfs.WccData{})
	default:
		return nfs.NFS3ErrNotSupp
	}
	return 0
}
