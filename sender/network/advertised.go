package network

import (
	"context"
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Flags of an interface for IPv6 that are those of its last router advertisement (include/net/if_inet6.h in the kernel tree): addresses
// come from DHCPv6, or only other things such as name servers do.
const (
	raManaged = 0x40 // IF_RA_MANAGED
	raOther   = 0x80 // IF_RA_OTHERCONF
)

// advertisedFlags asks the kernel what the last router advertisement of a link says of DHCPv6.
func advertisedFlags(index int) (managed, other bool) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(index)
	req.AddData(info)
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil || len(answers) == 0 || len(answers[0]) < unix.SizeofIfInfomsg {
		return false, false
	}
	inet6 := attribute6(attribute6(answers[0][unix.SizeofIfInfomsg:], unix.IFLA_AF_SPEC), unix.AF_INET6)
	flags := attribute6(inet6, unix.IFLA_INET6_FLAGS)
	if len(flags) != 4 {
		return false, false
	}
	f := binary.NativeEndian.Uint32(flags)
	return f&raManaged != 0, f&raOther != 0
}

// attribute6 returns the value of an attribute of netlink, nil if it is not there.
func attribute6(b []byte, kind uint16) []byte {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil
	}
	for _, a := range attrs {
		if a.Attr.Type&nl.NLA_TYPE_MASK == kind {
			return a.Value
		}
	}
	return nil
}

// Options of router advertisements (RFC 8106).
const (
	raDNS     = 25
	raDomains = 31
)

// sizeofNDUserOpt is the size of struct nduseroptmsg (include/uapi/linux/rtnetlink.h in the kernel tree): family and padding, one byte
// each, the length of the option in two bytes, the index of the interface in four, and eight more. The option follows.
const sizeofNDUserOpt = 16

// hearAdvertisements learns name servers and search domains from router advertisements, until ctx ends. The kernel uses none of them, and
// passes them on. It must be listened to before the first link is raised.
func (m *Manager) hearAdvertisements(ctx context.Context) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_ND_USEROPT)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, s.Close)
	m.wg.Go(func() {
		for ctx.Err() == nil {
			messages, from, err := s.Receive()
			if err != nil {
				sleep(ctx, poll) // the buffer was too small; routers repeat themselves
				continue
			}
			if from.Pid != nl.PidKernel {
				continue
			}
			for _, msg := range messages {
				if index, option, ok := ndUserOption(msg.Data); ok && msg.Header.Type == unix.RTM_NEWNDUSEROPT {
					m.hear(index, option)
				}
			}
		}
	})
	return nil
}

// ndUserOption returns the interface and the option of a message of the kernel.
func ndUserOption(b []byte) (index int, option []byte, ok bool) {
	if len(b) < sizeofNDUserOpt {
		return 0, nil, false
	}
	n := int(binary.NativeEndian.Uint16(b[2:]))
	if n > len(b)-sizeofNDUserOpt || b[0] != unix.AF_INET6 {
		return 0, nil, false
	}
	return int(int32(binary.NativeEndian.Uint32(b[4:]))), b[sizeofNDUserOpt : sizeofNDUserOpt+n], true
}

// hear learns from one option of a router advertisement: type and length in a byte each, two bytes without meaning, a lifetime in four.
func (m *Manager) hear(index int, option []byte) {
	const head = 8
	m.mu.Lock()
	l := m.links[index]
	m.mu.Unlock()
	if l == nil || len(option) < head {
		return
	}
	data := option[head:]
	if binary.BigEndian.Uint32(option[4:]) == 0 {
		data = nil // they are gone
	}
	switch option[0] {
	case raDNS:
		l.learn(ofRouter, addresses6(data), nil)
	case raDomains:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.learnSearch(domains(data))
	}
}
