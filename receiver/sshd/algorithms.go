package sshd

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Modern algorithms are those that x/crypto calls supported, legacy algorithms those that it calls
// insecure. SSH negotiates host key signature, key exchange, ciphers and MACs before a peer says
// which key it has. So a legacy algorithm that any key may use is offered to all peers, and a peer
// that ends up with one that its own key may not use is refused.

// legacyNames lists what the option "legacy" may name.
func legacyNames() []string {
	a := ssh.InsecureAlgorithms()
	names := slices.Concat(a.PublicKeyAuths, a.HostKeys, a.KeyExchanges, a.Ciphers, a.MACs)
	names = slices.DeleteFunc(names, func(n string) bool { return strings.Contains(n, "-cert-") })
	slices.Sort(names)
	return slices.Compact(names)
}

func isLegacy(name string) bool { return slices.Contains(legacyNames(), name) }

// offer adds to modern the algorithms of old that are in legacy.
func offer(modern, old, legacy []string) []string {
	for _, name := range old {
		if slices.Contains(legacy, name) {
			modern = append(modern, name)
		}
	}
	return modern
}

// setAlgorithms makes cfg offer the modern algorithms and these legacy ones.
func setAlgorithms(cfg *ssh.ServerConfig, legacy []string) {
	modern, old := ssh.SupportedAlgorithms(), ssh.InsecureAlgorithms()
	cfg.KeyExchanges = offer(modern.KeyExchanges, old.KeyExchanges, legacy)
	cfg.Ciphers = offer(modern.Ciphers, old.Ciphers, legacy)
	cfg.MACs = offer(modern.MACs, old.MACs, legacy)
	cfg.PublicKeyAuthAlgorithms = offer(modern.PublicKeyAuths, old.PublicKeyAuths, legacy)
}

// asOffered returns the signer of a host key without legacy signatures that no key may use.
func asOffered(key ssh.Signer, legacy []string) (ssh.Signer, error) {
	s, ok := key.(ssh.AlgorithmSigner)
	if key.PublicKey().Type() != ssh.KeyAlgoRSA || !ok {
		return key, nil
	}
	return ssh.NewSignerWithAlgorithms(s, offer([]string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}, []string{ssh.KeyAlgoRSA}, legacy))
}

// checkAlgorithms returns an error if a connection uses a legacy algorithm that its key may not use. signature is the
// algorithm of the peer's signature, used has the negotiated ones.
func (e *Entry) checkAlgorithms(used ssh.NegotiatedAlgorithms, signature string) error {
	for _, name := range []string{signature, used.HostKey, used.KeyExchange, used.Read.Cipher, used.Read.MAC, used.Write.Cipher, used.Write.MAC} {
		if isLegacy(name) && !slices.Contains(e.Legacy, name) {
			return fmt.Errorf("the client uses %s; legacy=%q in line %d would allow that", name, name, e.Line)
		}
	}
	return nil
}
