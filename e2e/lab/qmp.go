package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
	"time"

	"github.com/corehaul/corehaul/e2e/lab/guestcfg"
)

// qmpTimeout is enough for a QEMU whose main loop is busy with the guest.
const qmpTimeout = 30 * time.Second

// balloon tells QEMU to take memory from the guest through virtio_balloon. It waits a
// little, because under TCG a notice gets lost while the guest is still printing its
// request (QEMU 7.2, tried).
func (m *machine) balloon() error {
	time.Sleep(100 * time.Millisecond)
	size := int64(m.scenario.MemMiB-guestcfg.BalloonMiB) << 20
	return m.qmp("balloon", map[string]any{"value": size})
}

// link connects or disconnects the network cable.
func (m *machine) link(up bool) error {
	return m.qmp("set_link", map[string]any{"name": netID, "up": up})
}

// qmp sends QEMU one command. See qmpAsk.
func (m *machine) qmp(command string, arguments map[string]any) error {
	_, err := m.qmpAsk(command, arguments)
	return err
}

// qmpAsk returns the answer to one command of the QEMU Machine Protocol (QEMU:
// docs/interop/qmp-spec.rst): a greeting, then JSON requests and answers.
func (m *machine) qmpAsk(command string, arguments map[string]any) (answer json.RawMessage, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), qmpTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", m.qmpPath())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(qmpTimeout)); err != nil {
		return nil, err
	}
	dec, enc := json.NewDecoder(conn), json.NewEncoder(conn)
	var greeting json.RawMessage
	if err := dec.Decode(&greeting); err != nil {
		return nil, err
	}
	for _, request := range []map[string]any{
		{"execute": "qmp_capabilities"},
		{"execute": command, "arguments": arguments},
	} {
		if err := enc.Encode(request); err != nil {
			return nil, err
		}
		if answer, err = qmpAnswer(dec); err != nil {
			return nil, fmt.Errorf("qmp %s: %w", request["execute"], err)
		}
	}
	return answer, nil
}

// qmpAnswer waits for the answer to the last request and ignores events.
func qmpAnswer(dec *json.Decoder) (json.RawMessage, error) {
	for {
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := dec.Decode(&answer); err != nil {
			return nil, err
		}
		if answer.Error != nil {
			return nil, fmt.Errorf("QEMU says %q", answer.Error.Desc)
		}
		if answer.Return != nil {
			return answer.Return, nil
		}
	}
}

// watchEvents calls event with the names of QEMU's events until QEMU has ended. The
// function that it returns waits for the end. Do not send commands to the machine
// meanwhile, because QEMU has one connection at a time.
func (m *machine) watchEvents(ctx context.Context, event func(string)) (wait func() error) {
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	go func() { done <- m.readEvents(ctx, event) }()
	return func() error {
		cancel() // in case QEMU did not start
		return <-done
	}
}

func (m *machine) readEvents(ctx context.Context, event func(string)) error {
	conn, err := m.awaitQMP(ctx)
	if conn == nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	dec := json.NewDecoder(conn)
	if err := json.NewEncoder(conn).Encode(map[string]any{"execute": "qmp_capabilities"}); err != nil {
		return err
	}
	for {
		var message struct{ Event string }
		if err := dec.Decode(&message); err != nil {
			return nil //nolint:nilerr // QEMU has ended
		}
		if message.Event != "" {
			event(message.Event)
		}
	}
}

// awaitQMP connects when QEMU listens. It returns nil if ctx ends before that.
func (m *machine) awaitQMP(ctx context.Context) (net.Conn, error) {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", m.qmpPath())
		if err == nil {
			return conn, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) && ctx.Err() == nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, nil // QEMU does not listen
		case <-time.After(100 * time.Millisecond):
		}
	}
}
