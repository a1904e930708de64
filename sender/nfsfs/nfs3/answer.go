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

// acceptTexts are the texts of accept_stat.
var acceptTexts = map[uint32]string{
	1: "the server has no such service (PROG_UNAVAIL)",
	2: "the server has no such version of the service (PROG_MISMATCH)",
	3: "the server lacks this procedure (PROC_UNAVAIL)",
	4: "the server does not understand the call (GARBAGE_ARGS)",
	5: "the server failed (SYSTEM_ERR)",
}

// RejectError means that the server did not do a call, for a reason of RPC.
type RejectError struct{ Text string }

// Error returns the reason.
func (e *RejectError) Error() string { return e.Text }

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
	text, ok := acceptTexts[accepted.Stat]
	if !ok {
		text = fmt.Sprintf("the server answers with accept_stat %d", accepted.Stat)
	}
	return nil, &RejectError{text}
}

// denied returns the error of a denied call.
func denied(d decoder) error {
	var why struct{ Stat, Detail uint32 }
	if err := d.read(&why); err != nil {
		return err
	}
	if why.Stat == rejectedAuth {
		return &RejectError{fmt.Sprintf("the server refuses AUTH_UNIX (auth_stat %d); export with sec=sys", why.Detail)}
	}
	return &RejectError{"the server has another version of RPC"}
}
