package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A Method is a way to bring a dump to a disk.
type Method struct {
	Name string
	// Peer tells that it is not corehaul's, Local that there is no receiver and no network.
	Peer, Local bool
	// compressor is what a makedumpfile needs.
	compressor string
	receiver   *receiver // nil if Local
	send       func(*trip) ([]string, error)
	stored     func(*trip) (string, error)
}

// Methods are all methods, those of corehaul first.
var Methods = func() []Method {
	all := []Method{corehaulTLS("auto")}
	for _, encoding := range []string{"snappy", "zstd", "lz4", "none", "zstd-block"} {
		all = append(all, corehaulTLS(encoding))
	}
	all = append(all,
		Method{Name: "corehaul ssh", receiver: corehaulServe, send: sendTo(sshTarget), stored: storedDump},
		Method{Name: "corehaul sftp", receiver: openSSH, send: sendTo(sftpTarget), stored: storedDump},
		Method{Name: "corehaul nfs", receiver: ganesha, send: sendTo(nfsTarget), stored: storedDump},
		corehaulFile)
	for _, c := range []struct{ flag, name string }{{"-l", "lzo"}, {"-p", "snappy"}, {"-z", "zstd"}} {
		all = append(all, makedumpfileSSH(c.flag, c.name), makedumpfileFile(c.flag, c.name))
	}
	return all
}()

// quickMethods are those of Quick.
var quickMethods = []Method{corehaulTLS("auto"), corehaulFile, makedumpfileSSH("-l", "lzo"), makedumpfileFile("-l", "lzo")}

var corehaulFile = Method{Name: "corehaul file", Local: true, send: sendTo(fileTarget), stored: storedDump}

func corehaulTLS(encoding string) Method {
	name := "corehaul tls"
	if encoding != "auto" {
		name += " " + encoding
	}
	return Method{Name: name, receiver: corehaulServe, stored: storedDump, send: sendTo(func(t *trip) []string {
		return []string{"--to", "tls://" + address(t.net.host, tlsPort), "--identity", t.programs.keys.identity, "--encoding", encoding}
	})}
}

// sendTo makes the command line of corehaul-send with the flags of a target.
func sendTo(flags func(*trip) []string) func(*trip) ([]string, error) {
	return func(t *trip) ([]string, error) {
		argv := append([]string{t.programs.send, "send", "--progress", "0", "--level", levelName(t.job.Level)}, flags(t)...)
		return append(argv, t.programs.dumps[t.job.Dump]), nil
	}
}

func sshTarget(t *trip) []string {
	return []string{"--to", "ssh://kdump@" + address(t.net.host, sshPort), "--ssh-key", t.programs.keys.user, "--known-hosts", t.programs.keys.known}
}

func sftpTarget(t *trip) []string {
	return []string{"--to", "ssh://root@" + address(t.net.host, sshdPort) + t.store(), "--ssh-key", t.programs.keys.user, "--known-hosts", t.programs.keys.known}
}

func nfsTarget(t *trip) []string {
	return []string{"--to", fmt.Sprintf("nfs://%s%s?mountport=%d", address(t.net.host, nfsPort), t.store(), mountPort)}
}

func fileTarget(t *trip) []string { return []string{"--to", "file://" + t.store()} }

// makedumpfileSSH is what the kdump of distributions does: a flattened dump into ssh.
func makedumpfileSSH(flag, compressor string) Method {
	return Method{
		Name: "makedumpfile " + flag + ", ssh", Peer: true, compressor: compressor, receiver: openSSH, stored: storedFile("makedumpfile"),
		send: func(t *trip) ([]string, error) {
			dump, err := t.makedumpfile(compressor, "-F", flag)
			remote := "cat > " + quote(t.file()) + " && sync " + quote(t.file())
			return pipefail(quoteAll(dump) + " | " + quoteAll(append(t.programs.keys.ssh(t.net.host), remote))), err
		},
	}
}

// makedumpfileFile writes a dump to the local disk.
func makedumpfileFile(flag, compressor string) Method {
	return Method{
		Name: "makedumpfile " + flag + ", file", Peer: true, Local: true, compressor: compressor, stored: storedFile("KDUMP"),
		send: func(t *trip) ([]string, error) {
			dump, err := t.makedumpfile(compressor, flag)
			return pipefail(quoteAll(append(dump, t.file())) + " && sync " + quote(t.file())), err
		},
	}
}

// makedumpfile is a command line up to the dump that it reads.
func (t *trip) makedumpfile(compressor string, flags ...string) ([]string, error) {
	m, err := t.programs.makedumpfileWith(compressor)
	if err != nil {
		return nil, err
	}
	const errorsOnly = "4"
	argv := append(m.argv[:len(m.argv):len(m.argv)], "--message-level", errorsOnly, "-d", levelName(t.job.Level))
	return append(append(argv, flags...), t.programs.dumps[t.job.Dump]), nil
}

func pipefail(script string) []string { return []string{"bash", "-o", "pipefail", "-c", script} }

// quote makes one word of a shell out of a text.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func quoteAll(words []string) string {
	var quoted []string
	for _, w := range words {
		quoted = append(quoted, quote(w))
	}
	return strings.Join(quoted, " ")
}

// storedDump finds the only dump of a store, checks that it is complete, and returns its vmcore.
func storedDump(t *trip) (string, error) {
	var manifests []string
	err := filepath.WalkDir(t.store(), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "manifest.json" {
			manifests = append(manifests, path)
		}
		return err
	})
	if err != nil || len(manifests) != 1 {
		return "", fmt.Errorf("dumps in %s: %q, want one: %w", t.store(), manifests, err)
	}
	text, err := os.ReadFile(manifests[0])
	if err != nil {
		return "", err
	}
	var m struct {
		State string `json:"state"`
	}
	if err := json.Unmarshal(text, &m); err != nil || m.State != "complete" {
		return "", errors.Join(fmt.Errorf("%s: state %q, want complete", manifests[0], m.State), err)
	}
	return filepath.Join(filepath.Dir(manifests[0]), "vmcore"), nil
}

// storedFile checks how the file of a makedumpfile begins.
func storedFile(magic string) func(*trip) (string, error) {
	return func(t *trip) (string, error) {
		f, err := os.Open(t.file())
		if err != nil {
			return "", err
		}
		defer func() { _ = f.Close() }() // only read
		b := make([]byte, len(magic))
		if _, err := io.ReadFull(f, b); err != nil || !bytes.Equal(b, []byte(magic)) {
			return "", fmt.Errorf("%s begins with %q, want %q: %w", t.file(), b, magic, err)
		}
		return t.file(), nil
	}
}

// diskSpace is what a file takes on the disk, without its holes.
func diskSpace(file string) (float64, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return 0, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%s: %w", file, errors.ErrUnsupported)
	}
	const block = 512 // of st_blocks, whatever the file system has
	return float64(st.Blocks * block), nil
}
