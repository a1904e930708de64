package nfs3

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/rasky/go-xdr/xdr2"
	"github.com/vmware/go-nfs-client/nfs/rpc"
)

// What is wrong with an answer: it ends too early, or its contents do not have the form of the RFC.
var (
	errShort = errors.New("the server sends an answer that is too short")
	errForm  = errors.New("the server sends an answer that cannot be decoded")
)

// Values of reply_stat, accept_stat and reject_stat, RFC 5531, part 9.
const (
	msgAccepted  = 0
	rejectedAuth = 1
)

// rejections are the values of accept_stat for calls that were not done.
var rejections = map[uint32]RejectError{
	1: {Text: "the server has no such service (PROG_UNAVAIL), or it is still starting"},
	2: {Text: "the server has no such version of the service (PROG_MISMATCH)", forGood: true},
	3: {Text: "the server lacks this procedure (PROC_UNAVAIL)", forGood: true},
	4: {Text: "the server does not understand the call (GARBAGE_ARGS)", forGood: true},
	5: {Text: "the server failed (SYSTEM_ERR)"},
}

// RejectError means that the server did not do a call, for a reason of RPC.
type RejectError struct {
	Text    string
	forGood bool
}

// Error returns the reason.
func (e *RejectError) Error() string { return e.Text }

// ForGood reports whether no later try gets another answer: what the server speaks does not change. A service that is missing may
// still start, and Linux refuses the credentials of a client that is in no export yet (svcauth_unix_set_client in
// net/sunrpc/svcauth_unix.c).
func (e *RejectError) ForGood() bool { return e.forGood }

// decoder reads XDR. No opaque data, string or list is longer than the rest of the answer.
type decoder struct{ r *bytes.Reader }

func newDecoder(b []byte) decoder { return decoder{bytes.NewReader(b)} }

// read reads v, a pointer to a type of the XDR library.
func (d decoder) read(v any) error {
	// 0 would mean no limit.
	if _, err := xdr.UnmarshalLimited(d.r, v, uint(max(d.r.Len(), 1))); err != nil {
		return errForm // the library's error names its functions, which help nobody
	}
	return nil
}

// results returns the results of a procedure from an answer.
func results(answer []byte) ([]byte, error) {
	d := newDecoder(answer)
	var head struct{ Xid, Type, Stat uint32 }
	if err := d.read(&head); err != nil {
		return nil, err
	}
	if head.Type != msgReply {
		return nil, fmt.Errorf("the server sends a message of type %d, not an answer", head.Type)
	}
	if head.Stat != msgAccepted {
		return nil, denied(d)
	}
	var accepted struct {
		Verf rpc.Auth
		Stat uint32
	}
	if err := d.read(&accepted); err != nil {
		return nil, err
	}
	if accepted.Stat == 0 {
		return answer[len(answer)-d.r.Len():], nil
	}
	rejection, ok := rejections[accepted.Stat]
	if !ok {
		rejection.Text = fmt.Sprintf("the server answers with accept_stat %d", accepted.Stat)
	}
	return nil, &rejection
}

// denied returns the error of a denied call.
func denied(d decoder) error {
	var why struct{ Stat, Detail uint32 }
	if err := d.read(&why); err != nil {
		return err
	}
	if why.Stat == rejectedAuth {
		return &RejectError{Text: fmt.Sprintf("the server refuses AUTH_UNIX (auth_stat %d); export to this machine, with sec=sys", why.Detail)}
	}
	return &RejectError{Text: "the server has another version of RPC", forGood: true}
}
