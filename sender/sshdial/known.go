package sshdial

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/corehaul/corehaul/internal/plainfile"
	corehaultls "github.com/corehaul/corehaul/tls"
)

// maxFile bounds known_hosts files, in bytes. That of a fleet has some 100 KiB.
const maxFile = 4 << 20

// knownHosts is a known_hosts file.
type knownHosts struct {
	file     string
	callback ssh.HostKeyCallback
	lines    []string
}

func loadKnownHosts(file string) (*knownHosts, error) {
	data, err := plainfile.Read(file, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &corehaultls.FileError{
			Path: file, Problem: "there is no such file", Err: fs.ErrNotExist,
			Hint: "make it with ssh-keyscan HOST, and compare the fingerprint with the server's own: ssh-keygen -lf " + file,
		}
	}
	if err == nil {
		var callback ssh.HostKeyCallback
		if callback, err = knownhosts.New(file); err == nil {
			return &knownHosts{file: file, callback: callback, lines: strings.Split(string(data), "\n")}, nil
		}
	}
	return nil, &corehaultls.FileError{Path: file, Problem: "cannot be used as known_hosts", Hint: "sshd(8) describes its form; ssh-keyscan HOST writes it", Err: err}
}

// noKey belongs to nobody. If it is checked, the error of the library lists the known keys.
var noKey, _ = ssh.NewPublicKey(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)))

// algorithms returns the host key algorithms to ask addr for: those of its known keys.
func (k *knownHosts) algorithms(addr string) ([]string, error) {
	var unknown *knownhosts.KeyError
	if err := k.callback(strings.ToLower(addr), &net.TCPAddr{}, noKey); !errors.As(err, &unknown) || len(unknown.Want) == 0 {
		return nil, refused(err, fmt.Sprintf("%s has no key of %s", k.file, knownhosts.Normalize(addr)), "", k.keyscan(addr))
	}
	var list []string
	for _, alg := range ssh.SupportedAlgorithms().HostKeys {
		if slices.ContainsFunc(unknown.Want, func(known knownhosts.KnownKey) bool { return k.proves(known, alg) }) {
			list = append(list, alg)
		}
	}
	if len(list) == 0 {
		return nil, refused(nil, fmt.Sprintf("the keys of %s in %s are all of kinds that are not supported", knownhosts.Normalize(addr), k.file), "", k.keyscan(addr))
	}
	return list, nil
}

// proves reports whether a host with a known key can prove itself with alg.
func (k *knownHosts) proves(known knownhosts.KnownKey, alg string) bool {
	if n := known.Line; n > 0 && n <= len(k.lines) && strings.HasPrefix(strings.TrimSpace(k.lines[n-1]), "@cert-authority") {
		return strings.Contains(alg, "-cert-") // with any type of key
	}
	if known.Key.Type() == ssh.KeyAlgoRSA {
		return alg == ssh.KeyAlgoRSASHA256 || alg == ssh.KeyAlgoRSASHA512
	}
	return alg == known.Key.Type()
}

// check returns an error unless the key that a host showed is known.
func (k *knownHosts) check(addr string, remote net.Addr, key ssh.PublicKey) error {
	err := k.callback(addr, remote, key)
	if err == nil {
		return nil
	}
	shown := fmt.Sprintf("%s shows the %s key %s", knownhosts.Normalize(addr), key.Type(), ssh.FingerprintSHA256(key))
	if _, ok := errors.AsType[*knownhosts.RevokedError](err); ok {
		return refused(err, fmt.Sprintf("%s, which %s lists as revoked", shown, k.file), "", "find out who answers at this address")
	}
	if _, ok := errors.AsType[*knownhosts.KeyError](err); ok {
		return refused(err, fmt.Sprintf("%s, which is not the one in %s", shown, k.file), "",
			"find out who answers at this address; if the server has a new key, replace the line in "+k.file)
	}
	return refused(err, shown, err.Error(), "see the @cert-authority lines in "+k.file)
}

// keyscan returns a hint how to add a host's key to the file.
func (k *knownHosts) keyscan(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port = addr, defaultPort
	}
	option := ""
	if port != defaultPort {
		option = "-p " + port + " "
	}
	return fmt.Sprintf("add it: 'corehaul known-hosts' prints it on a receiver; or ssh-keyscan %s%s >> %s, and compare it with the server's /etc/ssh/ssh_host_*_key.pub",
		option, host, k.file)
}
