package sshdial

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"

	"github.com/corehaul/corehaul/hostname"
	corehaultls "github.com/corehaul/corehaul/tls"
)

const defaultPort = "22"

// Addr returns host and port of an ssh:// URL.
func Addr(u *url.URL) string { return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), defaultPort)) }

// clientVersion names this client in the logs of servers.
const clientVersion = "SSH-2.0-corehaul-send"

// Client logs in to hosts.
type Client struct {
	// Dial, unless nil, connects in place of d.
	Dial func(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error)

	keyFile string
	signer  ssh.Signer
	known   *knownHosts
}

// New reads a private key (ed25519, ECDSA or RSA, as ssh-keygen writes them) and a
// known_hosts file. Errors are of type *tls.FileError and say what to do.
func New(keyFile, knownHostsFile string) (*Client, error) {
	signer, err := loadKey(keyFile)
	if err != nil {
		return nil, err
	}
	known, err := loadKnownHosts(knownHostsFile)
	if err != nil {
		return nil, err
	}
	return &Client{keyFile: keyFile, signer: signer, known: known}, nil
}

func loadKey(file string) (ssh.Signer, error) {
	fail := func(problem, hint string, err error) (ssh.Signer, error) {
		return nil, &corehaultls.FileError{Path: file, Problem: problem, Hint: hint, Err: err}
	}
	makeOne := fmt.Sprintf("make a key with: ssh-keygen -t ed25519 -N '' -f %s", file)
	data, err := corehaultls.ReadSecret(file)
	if strings.HasPrefix(string(data), "ssh-") || strings.HasPrefix(string(data), "ecdsa-") { // before err: others may read public keys
		return fail("this is a public key", "name the private key, without .pub", nil)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fail("there is no such file", makeOne, fs.ErrNotExist)
	}
	if _, ok := errors.AsType[*corehaultls.FileError](err); ok {
		return nil, err
	}
	if err != nil {
		return fail("cannot be read", "check the rights of the file and the user that runs this", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		return fail("the key has a passphrase, and in a capture kernel nobody can type it",
			fmt.Sprintf("take a key of its own without one, or remove it with: ssh-keygen -p -N '' -f %s", file), nil)
	}
	if err != nil {
		return fail("not a private key of SSH", makeOne, err)
	}
	return signer, nil
}

// CheckKnown returns an error unless a usable key of the host at addr (HOST:PORT) is known.
func (c *Client) CheckKnown(addr string) error {
	_, err := c.known.algorithms(addr)
	return err
}

// Connect logs in as user at addr (HOST:PORT). The end of ctx ends the attempt. A *RefusedError means that another try is
// useless until somebody repairs something.
func (c *Client) Connect(ctx context.Context, user, addr string) (*Session, error) {
	addr = strings.ToLower(addr) // as OpenSSH does before it looks up the name
	algorithms, err := c.known.algorithms(addr)
	if err != nil {
		return nil, err
	}
	nc, err := c.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	l := &line{Conn: nc}
	release := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer release()
	conf := &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(c.signer)}, ClientVersion: clientVersion,
		HostKeyAlgorithms: algorithms, Config: ssh.Config{Ciphers: ciphers()},
		HostKeyCallback: func(hostname string, remote net.Addr, key ssh.PublicKey) error {
			return c.known.check(hostname, remote, key)
		},
	}
	conn, chans, reqs, err := ssh.NewClientConn(l, addr, conf)
	if err != nil {
		return nil, c.explain(ctx, user, addr, err)
	}
	go ssh.DiscardRequests(reqs)
	go refuse(chans)
	return &Session{conn: conn, line: l, user: user, addr: addr}, nil
}

func (c *Client) dial(ctx context.Context, addr string) (net.Conn, error) {
	d := &net.Dialer{}
	if c.Dial != nil {
		return c.Dial(ctx, d, "tcp", addr)
	}
	return d.DialContext(ctx, "tcp", addr)
}

// ciphers returns those of the library, with ChaCha20 first on CPUs without AES instructions.
func ciphers() []string {
	list := ssh.SupportedAlgorithms().Ciphers
	if cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL {
		return list
	}
	return append([]string{ssh.CipherChaCha20Poly1305}, slices.DeleteFunc(list, func(c string) bool { return c == ssh.CipherChaCha20Poly1305 })...)
}

// refuse refuses all channels that the server opens.
func refuse(chans <-chan ssh.NewChannel) {
	for ch := range chans {
		_ = ch.Reject(ssh.Prohibited, "this client serves nothing") // other calls see the end of the line
	}
}

// explain returns an error that says why a handshake failed.
func (c *Client) explain(ctx context.Context, user, addr string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ssh handshake with %s: %w", addr, context.Cause(ctx))
	}
	if e, ok := errors.AsType[*RefusedError](err); ok {
		return e
	}
	if broken(err) {
		return fmt.Errorf("ssh handshake with %s: %w", addr, err)
	}
	if n, ok := errors.AsType[*ssh.AlgorithmNegotiationError](err); ok {
		return refused(err, fmt.Sprintf("%s and this client have no algorithm in common", addr), n.Error(), c.known.keyscan(addr))
	}
	if strings.Contains(err.Error(), "unable to authenticate") { // it has no type
		public := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(c.signer.PublicKey())))
		return refused(ErrLogin, fmt.Sprintf("%s does not let %s in with the key %s", addr, quote(user), c.keyFile), "",
			fmt.Sprintf("authorize it on the server (host= is for a corehaul receiver; leave it out for OpenSSH): host=%q %s", thisHost(), public))
	}
	return refused(err, fmt.Sprintf("ssh handshake with %s", addr), err.Error(), "")
}

// thisHost is the name of this machine if it can be that of a host. A capture kernel has none.
func thisHost() string {
	name, err := os.Hostname()
	if err != nil || hostname.Check(name) != nil {
		return "NAME"
	}
	return name
}
