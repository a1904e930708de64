package depot_test

import (
	"errors"
	"net"
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/mem"
	"github.com/corehaul/corehaul/protocol"
	"github.com/corehaul/corehaul/sender/depot"
)

// A plan without pages for a machine with RAM is refused here as by any receiver, and leaves a dump of
// the log alone.
func TestPlanWithoutPages(t *testing.T) {
	root := t.TempDir()
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() {
		served <- depot.Serve(t.Context(), far, depot.Config{
			FS: dumpdir.OS{}, Root: root, Host: "host-1", Tool: "test 1", Lost: func(error) bool { return false },
		})
	}()
	c := protocol.NewConn(near, protocol.Sender)
	err := sendPlanWithoutPages(c)
	if !errors.Is(err, protocol.CodePlanMismatch) {
		t.Errorf("got %v, want code %s", err, protocol.CodePlanMismatch)
	}
	_ = near.Close()
	if err := <-served; !errors.Is(err, protocol.CodePlanMismatch) {
		t.Errorf("served: %v", err)
	}
	dirs, err := filepath.Glob(filepath.Join(root, dumpdir.DumpsName, "host-1", "*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("dumps %q, %v, want one", dirs, err)
	}
	d, err := dumpdir.Open(dumpdir.OS{}, dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }() // only read
	if m := d.Manifest(); m.State == dumpdir.StateComplete || m.State == dumpdir.StatePartial {
		t.Errorf("the dump is %s", m.State)
	}
}

// sendPlanWithoutPages plays a sender that keeps no page of 16 MiB of RAM, and returns what it hears of that.
func sendPlanWithoutPages(c *protocol.Conn) error {
	hello := &protocol.Hello{
		DumpID: protocol.DumpID([]byte("OSRELEASE=6.1.0-test\n"), nil, nil), Tool: "test 1", Machine: "aarch64",
		PageSize: 65536, MaxPFN: 256, RAMBytes: 16 << 20, NrCPUs: 1, Level: 31,
		Encodings: protocol.Encodings{protocol.EncodingSnappyPage},
	}
	enc := protocol.NewRunEncoder(hello.Params(), func([]byte) error { return nil })
	sum, err := enc.Close()
	if err != nil {
		return err
	}
	log := func() error { return c.NewLogWriter().Close("") }
	end := &protocol.PlanEnd{Hash: sum.Hash, Codec: protocol.EncodingSnappyPage}
	steps := []func() error{
		func() error { return c.Write(hello) },
		func() error { return c.WriteRAM([]mem.Range{{Start: 0, End: 16 << 20}}) },
		log,
		func() error { return readUntil[*protocol.Welcome](c) },
		func() error { return c.Write(end) },
		func() error { return readUntil[*protocol.PlanOK](c) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// readUntil reads up to a message of type M.
func readUntil[M protocol.Message](c *protocol.Conn) error {
	for {
		m, err := c.Read()
		if err != nil {
			return err
		}
		if _, ok := m.(M); ok {
			return nil
		}
	}
}
