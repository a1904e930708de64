package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/e2e/lab"
)

// keys are made once for all runs, since pairs of RSA keys take seconds.
type keys struct {
	ca, identity     string // of corehaul
	user, authorized string // an SSH key, and the file of those that may log in
	host             string // OpenSSH's host key
	known            string // known_hosts with the keys of both SSH servers
	serverKeys       []string
}

const hostName = "web-17"

func makeKeys(ctx context.Context, p *programs, dir string) (*keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	k := &keys{ca: in("ca"), identity: in("identity.pem"), user: in("user"), authorized: in("authorized_keys"), host: in("host"), known: in("known_hosts")}
	for _, args := range [][]string{{"ca", "init", "--ca", k.ca}, {"ca", "issue", hostName, "--ca", k.ca, "--output", k.identity}} {
		if out, err := exec.CommandContext(ctx, p.serve, args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("corehaul %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	// corehaul makes the keys that it lacks. In these runs it lacks none.
	for kind, file := range map[string]string{"ed25519": k.user, "rsa": in("ssh_host_rsa_key")} {
		if err := lab.WriteSSHKey(ctx, kind, file, hostName); err != nil {
			return nil, err
		}
	}
	for kind, file := range map[string]string{"ed25519": in("ssh_host_ed25519_key"), "ecdsa": in("ssh_host_ecdsa_key")} {
		if err := lab.WriteSSHKey(ctx, kind, file, hostName); err != nil {
			return nil, err
		}
	}
	if err := lab.WriteSSHKey(ctx, "ed25519", k.host, "root"); err != nil {
		return nil, err
	}
	var err error
	if k.serverKeys, err = filepath.Glob(in("ssh_host_*")); err != nil {
		return nil, err
	}
	return k, k.writeLists(in)
}

// writeLists writes the keys that servers and clients accept.
func (k *keys) writeLists(in func(string) string) error {
	user, err := os.ReadFile(k.user + ".pub")
	if err == nil {
		err = os.WriteFile(k.authorized, user, 0o600)
	}
	var known strings.Builder
	for _, server := range []struct {
		port int
		key  string
	}{
		{sshdPort, k.host}, {sshPort, in("ssh_host_ed25519_key")}, {sshPort, in("ssh_host_ecdsa_key")}, {sshPort, in("ssh_host_rsa_key")},
	} {
		public, readErr := os.ReadFile(server.key + ".pub")
		if readErr != nil {
			return readErr
		}
		for _, address := range []string{local, farAddress} {
			fmt.Fprintf(&known, "[%s]:%s %s", address, strconv.Itoa(server.port), public)
		}
	}
	if err != nil {
		return err
	}
	return os.WriteFile(k.known, []byte(known.String()), 0o600)
}

// ssh is the command line of OpenSSH's client. A remote command follows it.
func (k *keys) ssh(host string) []string {
	return []string{
		"ssh", "-F", "none", "-q", "-i", k.user, "-p", strconv.Itoa(sshdPort), "-o", "BatchMode=yes", "-o", "UserKnownHostsFile=" + k.known, "root@" + host,
	}
}

// address is HOST:PORT.
func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
