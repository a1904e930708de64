// Package dhcpv6 gives the network of the capture kernel to a real router: dnsmasq, which sends router advertisements and is a DHCPv6 server.
// The tests need root. They run in network namespaces of their own: one for all capture kernels, and one for each router.
package dhcpv6

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/network"
)

// insideEnv marks the test process that runs in a network namespace of its own.
const insideEnv = "COREHAUL_TEST_DHCPV6"

// testTime is enough for every wait on a loaded machine.
const testTime = 20 * time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...) //nolint:noctx // the test binary itself
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// lines are what a program or a Manager has written. Its zero value is empty.
type lines struct {
	mu   sync.Mutex
	all  []string
	next int           // the first one that await has not seen
	news chan struct{} // closed and replaced with each line
}

func (l *lines) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprintf(format, args...))
	if l.news != nil {
		close(l.news)
		l.news = nil
	}
}

// await waits for a line with all of some texts, after those that it found before.
func (l *lines) await(ctx context.Context, t *testing.T, texts ...string) {
	t.Helper()
	for {
		l.mu.Lock()
		for l.next < len(l.all) {
			l.next++
			if containsAll(l.all[l.next-1], texts) {
				l.mu.Unlock()
				return
			}
		}
		if l.news == nil {
			l.news = make(chan struct{})
		}
		news := l.news
		l.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			t.Fatalf("no line has all of %q:\n%s", texts, l)
		}
	}
}

func containsAll(line string, texts []string) bool {
	for _, text := range texts {
		if !strings.Contains(line, text) {
			return false
		}
	}
	return true
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all, "\n")
}

// routerScript runs dnsmasq in a namespace when the end of the cable, $1, is there. Its addresses are fe80::1 and 2001:db8:1::1, and
// collector.test is the name of the latter.
const routerScript = `set -e
echo ready
read -r _
ip link set lo up
ip address add fe80::1/64 dev "$1" nodad
ip address add 2001:db8:1::1/64 dev "$1" nodad
ip link set "$1" up
cable=$1
shift
exec dnsmasq --keep-in-foreground --log-facility=- --log-dhcp --conf-file=/dev/null --pid-file= --user=root --no-resolv --no-hosts \
	--interface="$cable" --enable-ra --address=/collector.test/2001:db8:1::1 "$@"
`

// router starts a router with arguments of dnsmasq at the other end of a new interface.
func router(t *testing.T, link string, args ...string) *lines {
	t.Helper()
	args = append([]string{"--net", "sh", "-c", routerScript, "router", link + "-r", "--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases")}, args...)
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	out, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said, read := new(lines), make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			said.add("%s", s.Text())
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = w.Close()
		<-read
	})
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	said.await(ctx, t, "ready") // it is in its namespace
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: link}, PeerName: link + "-r", PeerNamespace: netlink.NsPid(cmd.Process.Pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	said.await(ctx, t, "IPv6 router advertisement enabled")
	return said
}

// manager returns a Manager for a link, and the file with resolvers that it writes.
func manager(t *testing.T, link string) (m *network.Manager, log *lines, resolvers string) {
	t.Helper()
	log, resolvers = new(lines), filepath.Join(t.TempDir(), "resolv.conf")
	m = &network.Manager{Config: config.Network{Mode: "dhcp", Interface: link}, ResolvConf: resolvers, Log: log.add}
	t.Cleanup(m.Close)
	return m, log, resolvers
}

// connect connects to dnsmasq by the name that only dnsmasq knows.
func connect(ctx context.Context, t *testing.T, m *network.Manager) net.Conn {
	t.Helper()
	for {
		conn, err := m.Dial(ctx, &net.Dialer{}, "tcp", "collector.test:53")
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
			return conn
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(100 * time.Millisecond): // as the sender does
		}
	}
}

// TestManaged: addresses and resolvers come from DHCPv6 alone. The lease is of the shortest time that dnsmasq has, and the Manager
// renews it after a minute, in which nothing else happens.
func TestManaged(t *testing.T) {
	t.Parallel()
	said := router(t, "managed", "--dhcp-range=2001:db8:1::100,2001:db8:1::1ff,64,2m",
		"--dhcp-option=option6:dns-server,[2001:db8:1::1]", "--dhcp-option=option6:domain-search,example.org,example.net")
	m, log, resolvers := manager(t, "managed")
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	if err := m.Up(ctx); err != nil {
		t.Fatalf("%v\n%s\n%s", err, log, said)
	}
	log.await(ctx, t, "managed has 2001:db8:1::1", "/128 from DHCPv6 server fe80::")
	own, _, _ := net.SplitHostPort(connect(ctx, t, m).LocalAddr().String())
	if !strings.Contains(log.String(), "managed has "+own+"/128 from DHCPv6") {
		t.Errorf("connected from %s", own)
	}
	got, err := os.ReadFile(resolvers)
	if want := "search example.org example.net\nnameserver 2001:db8:1::1\n"; err != nil || string(got) != want {
		t.Errorf("resolv.conf is %q (%v), want %q", got, err, want)
	}
	said.await(ctx, t, "DHCPRENEW(managed-r)")
	said.await(ctx, t, "DHCPREPLY(managed-r) "+own)
}

// TestStateless: the address is made of the advertisement, and DHCPv6 has the resolvers.
func TestStateless(t *testing.T) {
	t.Parallel()
	said := router(t, "stateless", "--dhcp-range=2001:db8:1::,ra-stateless,64", "--dhcp-option=option6:dns-server,[2001:db8:1::1]")
	m, log, _ := manager(t, "stateless")
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	if err := m.Up(ctx); err != nil {
		t.Fatalf("%v\n%s\n%s", err, log, said)
	}
	log.await(ctx, t, "/64 by router advertisement")
	said.await(ctx, t, "DHCPINFORMATION-REQUEST(stateless-r)")
	connect(ctx, t, m)
}

// TestNoAddress: the server has no address for this machine. The console says so.
func TestNoAddress(t *testing.T) {
	t.Parallel()
	said := router(t, "none", "--dhcp-range=2001:db8:1::,static,64")
	m, log, _ := manager(t, "none")
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	up, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- m.Up(up) }()
	log.await(ctx, t, "network: waiting: none: ", "; DHCPv6 server fe80::", "status 2 \"no addresses available\"")
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) && (err == nil || !strings.Contains(err.Error(), "none: ")) {
		t.Errorf("got %v, want what was tried\n%s", err, said)
	}
}
