package sshd

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/corehaul/corehaul/receiver/kdumpclients"
)

// reasons are the texts of Unix programs for errors. ENOTEMPTY is an fs.ErrExist too.
var reasons = []struct {
	err  error
	text string
}{
	{syscall.ENOTEMPTY, "Directory not empty"},
	{syscall.ENOTDIR, "Not a directory"},
	{syscall.EISDIR, "Is a directory"},
	{syscall.EFBIG, "File too large"},
	{syscall.EMFILE, "Too many open files"},
	{syscall.EBUSY, "Device or resource busy"},
	{syscall.ENOSPC, "No space left on device"},
	{fs.ErrNotExist, "No such file or directory"},
	{fs.ErrExist, "File exists"},
	{fs.ErrPermission, "Permission denied"},
	{fs.ErrInvalid, "Invalid argument"},
}

// reason returns the text of Unix programs for an error. Other texts are not shown, because they may contain what clients
// must not see.
func reason(err error) string {
	var silent *silentError
	if errors.As(err, &silent) {
		return silent.Error()
	}
	if strange, ok := errors.AsType[*kdumpclients.StrangeFileError](err); ok {
		return strange.Error()
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.text
		}
	}
	return "Input/output error"
}
