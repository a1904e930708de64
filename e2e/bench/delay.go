package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Ports of the servers, each in a namespace of its own.
const (
	tlsPort       = 7420
	sshPort       = 7422
	sshdPort      = 2222
	nfsPort       = 2049
	mountPort     = 20048
	calibratePort = 9000
)

// proxyReady is what the proxy prints when it listens.
const proxyReady = "ready"

// ProxyCommand is the argument with which the program of this package runs RunProxy. The delay follows it.
const ProxyCommand = "delay-proxy"

// startProxy starts a process in a namespace that passes on connections to the receiver's side.
func startProxy(ctx context.Context, program string, near *namespace, delay time.Duration) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, program, ProxyCommand, delay.String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := near.do(cmd.Start); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != proxyReady {
		_ = cmd.Process.Kill() // the first error matters
		return nil, fmt.Errorf("the delaying proxy says %q: %w", line, cmd.Wait())
	}
	return cmd, nil
}

// RunProxy passes on connections of the sender's side to the receiver's, each byte after a delay, until the context ends. It keeps
// up to 1024 pieces of 32 KiB in flight, more than the links hold.
func RunProxy(ctx context.Context, delay string, out io.Writer) error {
	d, err := time.ParseDuration(delay)
	if err != nil {
		return err
	}
	zerolog.SetGlobalLevel(zerolog.Disabled) // it tells of every connection
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	for _, port := range []int{tlsPort, sshPort, sshdPort, nfsPort, mountPort, calibratePort} {
		text := strconv.Itoa(port)
		p := toxiproxy.NewProxy(server, text, net.JoinHostPort(local, text), net.JoinHostPort(farAddress, text))
		if err := p.Start(); err != nil {
			return fmt.Errorf("port %d: %w", port, err)
		}
		for _, stream := range []string{"upstream", "downstream"} {
			toxic := fmt.Sprintf(`{"name": %q, "type": "latency", "stream": %q, "toxicity": 1, "attributes": {"latency": %d}}`,
				stream, stream, d.Milliseconds())
			if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
				return fmt.Errorf("port %d: %w", port, err)
			}
		}
	}
	if _, err := fmt.Fprintln(out, proxyReady); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
