package protocol

import "encoding/binary"

// ackFixedLen is the window in front of the ranges of an ACK.
const ackFixedLen = 8

func (m *Ack) appendPayload(dst []byte, _ Params) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint64(dst, m.WindowBytes)
	return m.Durable.appendBinary(dst), nil
}

func (m *Ack) decode(p []byte) error {
	c := cursor{what: "ACK", b: p}
	m.WindowBytes, m.Durable = c.u64(), decodeSeqSet(&c)
	c.end()
	return c.err
}

func (m *Ping) appendPayload(dst []byte, _ Params) ([]byte, error) {
	return binary.LittleEndian.AppendUint64(dst, m.Token), nil
}

func (m *Pong) appendPayload(dst []byte, _ Params) ([]byte, error) {
	return binary.LittleEndian.AppendUint64(dst, m.Token), nil
}

// decodeToken reads the payload of PING and PONG.
func decodeToken(t Type, p []byte) (uint64, error) {
	c := cursor{what: t.String(), b: p}
	token := c.u64()
	c.end()
	return token, c.err
}

func (m *Notes) appendPayload(dst []byte, _ Params) ([]byte, error) {
	return appendPiece(dst, m.Data, TypeNotes)
}

func (m *Log) appendPayload(dst []byte, _ Params) ([]byte, error) {
	return appendPiece(dst, m.Data, TypeLog)
}

func (m *Plan) appendPayload(dst []byte, _ Params) ([]byte, error) {
	return appendPiece(dst, m.Data, TypePlan)
}

func appendPiece(dst, data []byte, t Type) ([]byte, error) {
	if err := checkPiece(data, t); err != nil {
		return nil, err
	}
	return append(dst, data...), nil
}

// checkPiece refuses empty pieces: a peer could send any number of them.
func checkPiece(data []byte, t Type) error {
	switch {
	case len(data) == 0:
		return Errorf(CodeBadMessage, "%s: empty piece", t)
	case len(data) > PieceBytes:
		return Errorf(CodeTooLarge, "%s: piece of %d bytes above %d", t, len(data), PieceBytes)
	}
	return nil
}
