package nfs3

import (
	"fmt"
	"syscall"
)

// Status is an nfsstat3 (RFC 1813, section 2.6) other than NFS3_OK. It is an error, and unwraps to the syscall.Errno of the same
// meaning.
type Status uint32

// Values of Status that the client itself looks at.
const (
	statusOK    Status = 0
	statusNoEnt Status = 2
	statusStale Status = 70
	// statusJukebox means that the server did nothing and wants to be asked again later.
	statusJukebox Status = 10008
)

// statuses has the names of RFC 1813. advice says what to do where that is not plain.
var statuses = map[Status]struct {
	name   string
	errno  syscall.Errno
	advice string
}{
	1:     {"PERM", syscall.EPERM, squashAdvice},
	2:     {"NOENT", syscall.ENOENT, ""},
	5:     {"IO", syscall.EIO, "look at the server's disk and its log"},
	6:     {"NXIO", syscall.ENXIO, ""},
	13:    {"ACCES", syscall.EACCES, squashAdvice},
	17:    {"EXIST", syscall.EEXIST, ""},
	18:    {"XDEV", syscall.EXDEV, ""},
	19:    {"NODEV", syscall.ENODEV, ""},
	20:    {"NOTDIR", syscall.ENOTDIR, ""},
	21:    {"ISDIR", syscall.EISDIR, ""},
	22:    {"INVAL", syscall.EINVAL, ""},
	27:    {"FBIG", syscall.EFBIG, ""},
	28:    {"NOSPC", syscall.ENOSPC, ""},
	30:    {"ROFS", syscall.EROFS, "export the directory for writing (rw)"},
	31:    {"MLINK", syscall.EMLINK, ""},
	63:    {"NAMETOOLONG", syscall.ENAMETOOLONG, ""},
	66:    {"NOTEMPTY", syscall.ENOTEMPTY, ""},
	69:    {"DQUOT", syscall.EDQUOT, ""},
	70:    {"STALE", syscall.ESTALE, "the server exports another file system there now, or somebody removed the directory"},
	71:    {"REMOTE", syscall.EREMOTE, ""},
	10001: {"BADHANDLE", syscall.ESTALE, ""},
	10002: {"NOT_SYNC", syscall.EAGAIN, ""},
	10003: {"BAD_COOKIE", syscall.EAGAIN, ""},
	10004: {"NOTSUPP", syscall.ENOTSUP, ""},
	10005: {"TOOSMALL", syscall.EINVAL, ""},
	10006: {"SERVERFAULT", syscall.EIO, "look at the server's log"},
	10007: {"BADTYPE", syscall.EINVAL, ""},
	10008: {"JUKEBOX", syscall.EAGAIN, "the server asked for patience too long"},
}

const squashAdvice = "let the user write there whom the server takes this one for (root_squash?), or name another with ?uid=N&gid=N"

// Error says what the status means, its name, and what to do.
func (s Status) Error() string {
	e, ok := statuses[s]
	if !ok {
		return fmt.Sprintf("nfsstat3 %d", uint32(s))
	}
	text := fmt.Sprintf("%v (NFS3ERR_%s)", e.errno, e.name)
	if e.advice != "" {
		text += ": " + e.advice
	}
	return text
}

// Unwrap returns the syscall.Errno of the same meaning.
func (s Status) Unwrap() error {
	if e, ok := statuses[s]; ok {
		return e.errno
	}
	return syscall.EIO
}
