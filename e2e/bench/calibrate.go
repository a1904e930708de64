package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"time"
)

// A Calibration is what plain TCP gets out of a link.
type Calibration struct {
	Link string `json:"link"`
	// Throughput is that of one connection, RTT the median time of a byte there and back.
	Throughput float64 `json:"throughput_bits_per_s"`
	RTT        float64 `json:"rtt_s"`
}

const (
	calibratePings = 20
	calibrateTime  = time.Second
)

// calibrate sends bytes there and back, and then as much as it can.
func (n *network) calibrate(ctx context.Context) (*Calibration, error) {
	var listener net.Listener
	err := n.far.do(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(calibratePort)))
		return err
	})
	if err != nil {
		return nil, err
	}
	served := make(chan error, 1)
	go func() { served <- answer(listener) }()
	var nc net.Conn
	err = n.near.do(func() (err error) {
		nc, err = new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(n.host, strconv.Itoa(calibratePort)))
		return err
	})
	if err != nil {
		_ = listener.Close() // the first error matters
		return nil, err
	}
	defer func() { _ = nc.Close() }() // all has been answered
	c, err := measure(nc)
	if err != nil {
		return nil, fmt.Errorf("calibrate link %s: %w", n.Name, err)
	}
	c.Link = n.Name
	return c, <-served
}

// answer sends back the first bytes of a connection, reads the rest, and sends a byte at its end.
func answer(l net.Listener) error {
	defer func() { _ = l.Close() }() // for one connection
	nc, err := l.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = nc.Close() }() // all has been written
	b := make([]byte, 1)
	for range calibratePings {
		if _, err := io.ReadFull(nc, b); err != nil {
			return err
		}
		if _, err := nc.Write(b); err != nil {
			return err
		}
	}
	// A proxy does not pass on half of an end. So the last byte, which is no zero, is the end.
	buf := make([]byte, 128<<10)
	for {
		k, err := nc.Read(buf)
		if err != nil {
			return err
		}
		if buf[k-1] != 0 {
			_, err := nc.Write(b)
			return err
		}
	}
}

// measure is the other side of answer.
func measure(nc net.Conn) (*Calibration, error) {
	b := []byte{0}
	var trips []float64
	for range calibratePings {
		start := time.Now()
		if _, err := nc.Write(b); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(nc, b); err != nil {
			return nil, err
		}
		trips = append(trips, time.Since(start).Seconds())
	}
	slices.Sort(trips)
	sent := 0
	piece := make([]byte, 128<<10)
	start := time.Now()
	for time.Since(start) < calibrateTime {
		if _, err := nc.Write(piece); err != nil {
			return nil, err
		}
		sent += len(piece)
	}
	if _, err := nc.Write([]byte{1}); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(nc, b); err != nil {
		return nil, err
	}
	return &Calibration{Throughput: float64(sent) * 8 / time.Since(start).Seconds(), RTT: middle(trips)}, nil
}
