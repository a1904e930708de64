package receiver

import (
	"errors"
	"fmt"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/intake"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/storage"
)

// Causes with which a session is told to stop.
var (
	errShutdown   = protocol.Errorf(protocol.CodeShuttingDown, "the receiver is being stopped")
	errSuperseded = protocol.Errorf(protocol.CodeSuperseded, "a newer session has taken this dump over")
)

// wireError returns the error to send to the peer for err.
func wireError(err error) *protocol.Error {
	switch {
	case errors.Is(err, storage.ErrBusy):
		err = fmt.Errorf("%w: %w", dumpdir.ErrLocked, err)
	case errors.Is(err, storage.ErrBadName):
		return &protocol.Error{Code: protocol.CodeIdentity, Text: "the name cannot be used for a directory", Err: err}
	}
	return intake.WireError(err)
}
