package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var testID6 = newID6(net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56})

// servers are what stands behind a fake socket6: for each packet of the client, the answers that come after a while.
type fakeServers struct {
	answer func(kind byte, packet []byte) [][]byte
	after  time.Duration
	queue  [][]byte
	due    time.Time
	began  time.Time
	sent   []string // kind and time of each message
	closed bool
}

func (f *fakeServers) send(packet []byte) error {
	f.sent = append(f.sent, fmt.Sprintf("%d at %.0fs", packet[0], time.Since(f.began).Seconds()))
	f.queue, f.due = append(f.queue, f.answer(packet[0], packet)...), time.Now().Add(f.after)
	return nil
}

func (f *fakeServers) receive(until time.Time) ([]byte, netip.Addr, error) {
	if len(f.queue) == 0 || f.due.After(until) {
		time.Sleep(time.Until(until))
		return nil, netip.Addr{}, os.ErrDeadlineExceeded
	}
	time.Sleep(time.Until(f.due))
	packet := f.queue[0]
	f.queue = f.queue[1:]
	return packet, netip.MustParseAddr("fe80::9"), nil
}

func (f *fakeServers) Close() error { f.closed = true; return nil }

func (f *fakeServers) client() *client6 {
	f.began = time.Now()
	return &client6{testID6, func(context.Context) (socket6, error) { f.closed = false; return f, nil }, func(error) {}}
}

// A serverAnswer is a packet of a server.
type serverAnswer struct {
	kind       byte
	server     string // its DUID
	addr       string
	preferred  uint32
	valid      uint32
	t1, t2     uint32
	preference byte
	status     uint16
	dns        string
	other      bool // for another client
}

func (a serverAnswer) to(packet []byte) []byte {
	b := append([]byte{a.kind}, packet[1:4]...)
	id := testID6
	if a.other {
		id = newID6(net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1})
	}
	u32 := func(vs ...uint32) (b []byte) {
		for _, v := range vs {
			b = append(b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
		}
		return b
	}
	b = option6(b, optClientID6, id.duid)
	b = option6(b, optServerID6, []byte(a.server))
	ia := append(id.iaid[:], u32(a.t1, a.t2)...)
	if a.addr != "" {
		ia = option6(ia, optIAAddr6, append(netip.MustParseAddr(a.addr).AsSlice(), u32(a.preferred, a.valid)...))
	}
	if a.status != 0 {
		ia = option6(ia, optStatus6, append([]byte{byte(a.status >> 8), byte(a.status)}, "not today"...))
	}
	b = option6(b, optIANA6, ia)
	b = option6(b, optPreference6, []byte{a.preference})
	if a.dns != "" {
		b = option6(b, optDNS6, netip.MustParseAddr(a.dns).AsSlice())
	}
	return b
}

// TestMessage6 has the bytes of a Request, option by option (RFC 8415, sections 8 and 21).
func TestMessage6(t *testing.T) {
	got := message6(request6, [3]byte{1, 2, 3}, testID6, 1500*time.Millisecond, &lease6{server: []byte("srv"), addr: netip.MustParseAddr("2001:db8::7")})
	want := strings.Join([]string{
		"03 010203",
		"0001 000a 0003 0001 525400123456", // client's DUID
		"0002 0003 737276",
		"0003 0028 00123456 00000000 00000000", // IA_NA
		"0005 0018 20010db8000000000000000000000007 00000000 00000000",
		"0008 0002 0096", // hundredths of a second
		"0006 0004 0017 0018",
	}, "")
	if want = strings.ReplaceAll(want, " ", ""); fmt.Sprintf("%x", got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
	if _, err := answer6(got, request6, [3]byte{1, 2, 3}, testID6); err != nil {
		t.Errorf("the client's own message: %v", err)
	}
}

// TestTimes6 holds the times of RFC 8415, section 15, at both ends of chance.
func TestTimes6(t *testing.T) {
	for chance, want := range map[float64]string{
		0: "1s 1.9s 3.61s 6.859s 13.0321s 24.76099s 27s", // the first one is never shorter than it should be
		1: "1.1s 2.31s 4.851s 10.1871s 21.39291s 33s 33s",
	} {
		var got []string
		var last time.Duration
		for range 7 {
			last = solicitTimes.next(last, solicit6, chance)
			got = append(got, last.String())
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("chance %v: got %s, want %s", chance, s, want)
		}
	}
}

// exchange lets a client get an address from servers, with time that does not pass.
func exchange(t *testing.T, f *fakeServers) (lease *lease6, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		lease, err = f.client().bind(t.Context())
	})
	if !f.closed {
		t.Error("the socket is still open")
	}
	return lease, err
}

func TestBind6(t *testing.T) {
	good := serverAnswer{server: "good", addr: "2001:db8::7", preferred: 60, valid: 120}
	offers := func(list ...serverAnswer) func(byte, []byte) [][]byte {
		return func(kind byte, packet []byte) (answers [][]byte) {
			for _, a := range list {
				// Of all servers, the one that a Request names answers.
				switch {
				case kind == solicit6:
					a.kind = advertise6
				case strings.Contains(string(packet), a.server):
					a.kind = reply6
				default:
					continue
				}
				answers = append(answers, a.to(packet))
			}
			return answers
		}
	}
	change := func(f func(*serverAnswer)) serverAnswer { a := good; f(&a); return a }
	worse := change(func(a *serverAnswer) { a.server, a.addr = "bad", "2001:db8::8" })
	for _, tc := range []struct {
		name   string
		answer func(byte, []byte) [][]byte
		sent   string
		want   string
	}{
		{"one server", offers(good), "1 at 0s, 3 at 1s", "2001:db8::7"},
		{"the highest preference", offers(worse, change(func(a *serverAnswer) { a.preference = 7 })), "1 at 0s, 3 at 1s", "2001:db8::7"},
		{"one to take at once", offers(change(func(a *serverAnswer) { a.preference = 255 }), worse), "1 at 0s, 3 at 0s", "2001:db8::7"},
		{"the first of two", offers(good, worse), "1 at 0s, 3 at 1s", "2001:db8::7"},
		{"another refuses", offers(change(func(a *serverAnswer) { a.server, a.addr, a.status = "bad", "", 2 }), good), "1 at 0s, 3 at 1s", "2001:db8::7"},
		{"for another client", offers(change(func(a *serverAnswer) { a.other = true })), "", "no DHCPv6 server answers"},
		{"no server", offers(), "", "no DHCPv6 server answers"},
		{"refused", offers(change(func(a *serverAnswer) { a.addr, a.status = "", 2 })), "", `DHCPv6 server fe80::9: status 2 "not today"`},
		{"an address of the link", offers(change(func(a *serverAnswer) { a.addr = "fe80::7" })), "", "offers no address"},
		{"of everybody", offers(change(func(a *serverAnswer) { a.addr = "ff02::1" })), "", "offers no address"},
		{"of IPv4", offers(change(func(a *serverAnswer) { a.addr = "::ffff:192.0.2.1" })), "", "offers no address"},
		{"gone already", offers(change(func(a *serverAnswer) { a.preferred, a.valid = 0, 0 })), "", "offers no address"},
		{"longer preferred than valid", offers(change(func(a *serverAnswer) { a.preferred = 121 })), "", "offers no address"},
		{"T1 after T2", offers(change(func(a *serverAnswer) { a.t1, a.t2 = 50, 40 })), "", "offers no address"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fakeServers{answer: tc.answer, after: time.Millisecond}
			lease, err := exchange(t, f)
			got := fmt.Sprint(err)
			if err == nil {
				got = lease.addr.String()
			}
			if !strings.Contains(got, tc.want) {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if sent := strings.Join(f.sent, ", "); tc.sent != "" && sent != tc.sent || tc.sent == "" && len(f.sent) != solicitTimes.count {
				t.Errorf("sent %s, want %s", sent, tc.sent)
			}
		})
	}
}

// TestFlood6: packets that are no answers come without end. The client asks when it is time, as if there were none.
func TestFlood6(t *testing.T) {
	f := &fakeServers{after: time.Millisecond}
	f.answer = func(_ byte, packet []byte) [][]byte {
		return slices.Repeat([][]byte{{}, packet, packet[:5], append([]byte{advertise6}, packet[1:]...), {advertise6, 0, 0, 0, 0xff}}, 1000)
	}
	if _, err := exchange(t, f); !errors.Is(err, errSilence) || len(f.sent) != solicitTimes.count {
		t.Errorf("got %v after %d messages", err, len(f.sent))
	}
}

// TestProlong6: the lease is renewed at T1 by its server, from T2 on by all, and not after its end.
func TestProlong6(t *testing.T) {
	lease := &lease6{server: []byte("srv"), addr: netip.MustParseAddr("2001:db8::7"), preferred: 1000 * time.Second, valid: 2000 * time.Second}
	for _, tc := range []struct {
		name    string
		answers func(kind byte) bool
		want    string
		sent    []string // the first ones of each kind
	}{
		{"renewed", func(kind byte) bool { return kind == renew6 }, "", []string{"5 at 500s"}},
		{"rebound", func(kind byte) bool { return kind == rebind6 }, "", []string{"5 at 500s", "6 at 800s"}},
		{"lost", func(byte) bool { return false }, errSilence.Error(), []string{"5 at 500s", "6 at 800s"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fakeServers{after: time.Millisecond}
			f.answer = func(kind byte, packet []byte) [][]byte {
				if !tc.answers(kind) {
					return nil
				}
				return [][]byte{serverAnswer{kind: reply6, server: "srv", addr: "2001:db8::7", preferred: 1000, valid: 2000}.to(packet)}
			}
			synctest.Test(t, func(t *testing.T) {
				c := f.client()
				next, err := c.prolong(t.Context(), lease, time.Now())
				if fmt.Sprint(err) != tc.want && (tc.want != "" || err != nil || next.addr != lease.addr) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
				if err != nil && time.Since(f.began) != lease.valid {
					t.Errorf("gave up after %v", time.Since(f.began))
				}
			})
			var first []string
			for _, s := range f.sent {
				if len(first) == 0 || first[len(first)-1][0] != s[0] {
					first = append(first, s)
				}
			}
			if !slices.Equal(first, tc.sent) {
				t.Errorf("sent %q, want first ones %q", f.sent, tc.sent)
			}
		})
	}
}

// TestRenewal6: the server's times count, unless they are missing or too short; a lease may have no end.
func TestRenewal6(t *testing.T) {
	const forever = (1<<32 - 1) * time.Second
	for _, tc := range []struct{ t1, t2, preferred, want1, want2 time.Duration }{
		{time.Minute, 2 * time.Minute, time.Hour, time.Minute, 2 * time.Minute},
		{0, 0, time.Hour, 30 * time.Minute, 48 * time.Minute},
		{0, 0, 0, minRenewal, minRenewal},
		{time.Second, 2 * time.Second, 3 * time.Second, minRenewal, minRenewal},
		{forever, forever, forever, forever, forever},
		{0, 0, forever, forever / 2, forever / 5 * 4},
	} {
		l := lease6{t1: tc.t1, t2: tc.t2, preferred: tc.preferred}
		if t1, t2 := l.renewal(); t1 != tc.want1 || t2 != tc.want2 {
			t.Errorf("%+v: got %v, %v", tc, t1, t2)
		}
	}
}

func TestDomains(t *testing.T) {
	for in, want := range map[string][]string{
		"\x07example\x03org\x00\x03net\x00":       {"example.org", "net"},
		"\x07example\x03org\x00\x00\x00\x00":      {"example.org"}, // padded, RFC 8106
		"\x07example\x03org":                      nil,
		"\x07example\x03org\x00\xc0\x00":          {"example.org"}, // no compression here
		strings.Repeat("\x01a\x00", maxSearch+1):  slices.Repeat([]string{"a"}, maxSearch),
		"\x40" + strings.Repeat("a", 64) + "\x00": nil,
		"": nil,
	} {
		if got := domains([]byte(in)); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzAnswer6: whatever a server sends, the client takes only what it may use, and no more than it asked for.
func FuzzAnswer6(f *testing.F) {
	packet := message6(solicit6, [3]byte{1, 2, 3}, testID6, 0, nil)
	for _, a := range []serverAnswer{
		{kind: advertise6, server: "srv", addr: "2001:db8::7", preferred: 60, valid: 120, t1: 30, t2: 48, preference: 255, dns: "2001:db8::53"},
		{kind: reply6, server: "srv", status: 2},
		{kind: reply6, server: "srv", addr: "fe80::1", preferred: 1<<32 - 1, valid: 1<<32 - 1, dns: "fe80::53"},
		{kind: reply6, other: true},
	} {
		f.Add(a.to(packet))
	}
	f.Add(option6(message6(request6, [3]byte{1, 2, 3}, testID6, time.Hour, &lease6{server: []byte("srv"), addr: netip.IPv6Loopback()}), optDomains6, []byte("\x03org\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 4 {
			return
		}
		l, err := answer6(b, b[0], [3]byte(b[1:4]), testID6)
		if err != nil {
			if l != nil {
				t.Error("a lease beside an error")
			}
			return
		}
		if l.addr.IsValid() && (!l.addr.IsGlobalUnicast() || l.valid <= 0 || l.preferred > l.valid || l.t2 > 0 && l.t1 > l.t2) {
			t.Errorf("took %+v", l)
		}
		if len(l.dns) > maxServers || len(l.search) > maxSearch || len(l.server) < minDUID || len(l.server) > maxDUID {
			t.Errorf("took %d servers, %d domains, a DUID of %d bytes", len(l.dns), len(l.search), len(l.server))
		}
		// What it sends for such a lease is a message that can be read.
		if l.addr.IsValid() {
			again, err := answer6(message6(request6, [3]byte{1}, testID6, 0, l), request6, [3]byte{1}, testID6)
			if err != nil || !slices.Equal(again.server, l.server) {
				t.Errorf("its request: %v", err)
			}
		}
	})
}
