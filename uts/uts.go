// Package uts holds the name that a kernel gives itself: struct new_utsname (include/uapi/linux/utsname.h), as uname(2)
// returns it. Kernel memory, headers of kdump-compressed files, the journal of a dump directory and HELLO all have it.
//
// The text comes from crashed machines and is not fit for a terminal unescaped. All types are plain values.
package uts

import "cmp"

const (
	// MaxLen is the length limit of a field in bytes (__NEW_UTS_LEN).
	MaxLen = 64
	// FieldLen is the length of a field with its closing NUL, in memory and in headers.
	FieldLen = MaxLen + 1
)

// Unknown stands in the header of a file for a field that is not known.
const Unknown = "(unknown)"

// Name is struct new_utsname. Fields may be empty. The tags are the members of HELLO.
type Name struct {
	Sysname    string `json:"sysname,omitempty"`
	Nodename   string `json:"nodename,omitempty"`
	Release    string `json:"release,omitempty"`
	Version    string `json:"version,omitempty"`
	Machine    string `json:"machine,omitempty"`
	Domainname string `json:"domainname,omitempty"`
}

// Fields returns the fields of n in the order of struct new_utsname.
func (n *Name) Fields() [6]*string {
	return [6]*string{&n.Sysname, &n.Nodename, &n.Release, &n.Version, &n.Machine, &n.Domainname}
}

// ForHeader returns n as it belongs into a header that others read: libkdumpfile, and with
// it drgn, learns the machine only from a utsname whose release and version are not empty
// (uts_looks_sane).
func (n Name) ForHeader() Name {
	if n.Machine != "" {
		n.Release, n.Version = cmp.Or(n.Release, Unknown), cmp.Or(n.Version, Unknown)
	}
	return n
}
