package nfs3

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/vmware/go-nfs-client/nfs"
)

// Procedures of NFS that the library does not name, RFC 1813, section 3.3.
const (
	procGetAttr = 1
	procSetAttr = 2
	procRename  = 14
	procReadDir = 16
	procFSStat  = 18
)

// Values of createmode3, RFC 1813, section 3.3.8. Guarded creation fails if the name exists. An exclusive one would recognise
// its own repetition, but nothing is repeated here.
const (
	unchecked = 0
	guarded   = 1
)

// Attr is what is known of a file (fattr3).
type Attr struct {
	Dir, Regular, Link bool
	// Size is in bytes.
	Size int64
}

func attrOf(f *nfs.Fattr) Attr {
	return Attr{Dir: f.Type == nfs.NF3Dir, Regular: f.Type == nfs.NF3Reg, Link: f.Type == nfs.NF3Lnk, Size: int64(min(f.Filesize, math.MaxInt64))}
}

// GetAttr returns the attributes of a file.
func (c *Client) GetAttr(fh FH) (Attr, error) {
	var res nfs.Fattr
	if _, err := c.do(procGetAttr, &struct{ FH []byte }{fh}, nil, &res); err != nil {
		return Attr{}, err
	}
	return attrOf(&res), nil
}

// SetSize truncates or extends a file. It is durable when it returns (RFC 1813, section 3.3.2 and 4.8).
func (c *Client) SetSize(fh FH, size uint64) error {
	return c.setAttr(fh, nfs.Sattr3{Size: nfs.SetSize{SetIt: true, Size: size}})
}

func (c *Client) setAttr(fh FH, attr nfs.Sattr3) error {
	args := &struct {
		FH    []byte
		Attr  nfs.Sattr3
		Guard bool // by ctime
	}{FH: fh, Attr: attr}
	_, err := c.do(procSetAttr, args, nil, nil)
	return err
}

// Lookup finds a name in a directory.
func (c *Client) Lookup(dir FH, name string) (FH, Attr, error) {
	var res struct {
		FH      []byte
		Attr    nfs.PostOpAttr
		DirAttr nfs.PostOpAttr
	}
	if _, err := c.do(nfs.NFSProc3Lookup, &nfs.Diropargs3{FH: dir, Filename: name}, nil, &res); err != nil {
		return nil, Attr{}, err
	}
	return c.withAttr(res.FH, res.Attr)
}

// withAttr checks a handle and completes attributes, which a server may leave out.
func (c *Client) withAttr(b []byte, attr nfs.PostOpAttr) (FH, Attr, error) {
	fh, err := checkFH(b)
	if err != nil {
		return nil, Attr{}, err
	}
	if attr.IsSet {
		return fh, attrOf(&attr.Attr), nil
	}
	known, err := c.GetAttr(fh)
	return fh, known, err
}

// created is the result of CREATE and MKDIR.
type created struct {
	FH   nfs.PostOpFH3
	Attr nfs.PostOpAttr
}

// Create creates an empty file, or empties the one of this name. With exclusive, the name must not exist: then the Status matches
// fs.ErrExist. It is durable when it returns.
func (c *Client) Create(dir FH, name string, mode uint32, exclusive bool) (FH, error) {
	args := &struct {
		Where nfs.Diropargs3
		How   uint32
		Attr  nfs.Sattr3
	}{
		Where: nfs.Diropargs3{FH: dir, Filename: name}, How: unchecked,
		Attr: nfs.Sattr3{Mode: nfs.SetMode{SetIt: true, Mode: mode}, Size: nfs.SetSize{SetIt: true}},
	}
	if exclusive {
		args.How = guarded
	}
	var res created
	if _, err := c.do(nfs.NFSProc3Create, args, nil, &res); err != nil {
		return nil, err
	}
	fh, attr, err := c.made(dir, name, &res)
	if err != nil || exclusive {
		return fh, err
	}
	if !attr.Regular {
		return nil, errors.New("there is something else of this name")
	}
	if attr.Size != 0 { // the RFC does not say that the server has to take the size of a file that is there
		err = c.SetSize(fh, 0)
	}
	return fh, err
}

// made returns what CREATE or MKDIR made. A server need not send the handle.
func (c *Client) made(dir FH, name string, res *created) (FH, Attr, error) {
	if !res.FH.IsSet {
		return c.Lookup(dir, name)
	}
	return c.withAttr(res.FH.FH, res.Attr)
}

// Mkdir creates a directory. It is durable when it returns.
func (c *Client) Mkdir(dir FH, name string, mode uint32) error {
	args := &struct {
		Where nfs.Diropargs3
		Attr  nfs.Sattr3
	}{nfs.Diropargs3{FH: dir, Filename: name}, nfs.Sattr3{Mode: nfs.SetMode{SetIt: true, Mode: mode}}}
	_, err := c.do(nfs.NFSProc3Mkdir, args, nil, nil)
	return err
}

// Remove removes a file. It is durable when it returns.
func (c *Client) Remove(dir FH, name string) error {
	_, err := c.do(nfs.NFSProc3Remove, &nfs.Diropargs3{FH: dir, Filename: name}, nil, nil)
	return err
}

// Rename renames a file or directory, and replaces a file. It is durable when it returns.
func (c *Client) Rename(fromDir FH, from string, toDir FH, to string) error {
	args := &struct{ From, To nfs.Diropargs3 }{
		nfs.Diropargs3{FH: fromDir, Filename: from}, nfs.Diropargs3{FH: toDir, Filename: to},
	}
	_, err := c.do(procRename, args, nil, nil)
	return err
}

// Bounds of a directory, in bytes.
const (
	dirReply = 64 << 10 // of one answer to READDIR
	maxDir   = 16 << 20 // of all names, with entryLen for each
	entryLen = 64       // what a name takes beside its text, rounded up
)

// ReadDir returns the names in a directory without "." and "..".
func (c *Client) ReadDir(dir FH) ([]string, error) {
	args := &struct {
		FH     []byte
		Cookie uint64
		Verf   uint64
		Count  uint32
	}{FH: dir, Count: dirReply}
	var names []string
	for size := 0; ; {
		var res struct {
			Attr nfs.PostOpAttr
			Verf uint64
		}
		b, err := c.do(procReadDir, args, nil, &res)
		if err != nil {
			return nil, err
		}
		more, cookie, eof, err := readEntries(newDecoder(b))
		if err != nil {
			return nil, err
		}
		for _, name := range more {
			size += entryLen + len(name)
			if name == "." || name == ".." {
				continue
			}
			if name == "" || strings.ContainsAny(name, "/\x00") {
				return nil, fmt.Errorf("the server sends %q as a name", name)
			}
			names = append(names, name)
		}
		switch {
		case eof:
			return names, nil
		case len(more) == 0, cookie == args.Cookie:
			return nil, errors.New("the server lists a directory without an end")
		case size > maxDir:
			return nil, fmt.Errorf("a directory with more than %d MiB of names; move some of its entries away", maxDir>>20)
		}
		args.Cookie, args.Verf = cookie, res.Verf
	}
}

// readEntries reads a dirlist3: entries, each behind a 1, up to a 0, then whether the directory ends here.
func readEntries(d decoder) (names []string, cookie uint64, eof bool, err error) {
	for {
		var follows bool
		if err := d.read(&follows); err != nil {
			return nil, 0, false, err
		}
		if !follows {
			err := d.read(&eof)
			return names, cookie, eof, err
		}
		var entry struct {
			FileID uint64
			Name   string
			Cookie uint64
		}
		if err := d.read(&entry); err != nil {
			return nil, 0, false, err
		}
		names, cookie = append(names, entry.Name), entry.Cookie
	}
}

// Free returns the bytes on the file system of fh that this user may use.
func (c *Client) Free(fh FH) (int64, error) {
	var res struct {
		Attr                nfs.PostOpAttr
		Total, Free, Usable uint64 // bytes
	}
	if _, err := c.do(procFSStat, &struct{ FH []byte }{fh}, nil, &res); err != nil {
		return 0, err
	}
	return int64(min(res.Usable, math.MaxInt64)), nil
}

// fsinfo asks for the lengths of READ and WRITE.
func (c *Client) fsinfo() error {
	var res nfs.FSInfo
	if _, err := c.do(nfs.NFSProc3FSInfo, &struct{ FH []byte }{c.Root}, nil, &res); err != nil {
		return err
	}
	c.ReadLen, c.WriteLen = transfer(res.RTPref, res.RTMax), transfer(res.WTPref, res.WTMax)
	return nil
}

// minTransfer is the least length of READ and WRITE that makes sense, in bytes.
const minTransfer = 512

// transfer returns the length of READ or WRITE for a preferred and a largest one.
func transfer(pref, most uint32) uint32 {
	if most != 0 {
		pref = min(pref, most)
	}
	return min(max(pref, minTransfer), MaxTransfer)
}
