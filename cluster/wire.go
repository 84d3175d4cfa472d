package cluster

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// Limits of one request or answer on the wire, in bytes.
const (
	maxHead    = 64 << 10
	maxRequest = MaxCommand + 64<<10 // body of a request
	maxAnswer  = 4 << 20             // body of an answer: a status may list thousands of objects
)

// A requestHead says what is asked; the body follows it.
type requestHead struct {
	Method  string `json:"method"`
	Agent   string `json:"agent,omitempty"` // for methodCall: the Handler's method
	Timeout int64  `json:"timeout_ms"`      // how long the caller waits
}

// An answerHead says how it went; the body follows it.
type answerHead struct {
	Code    code   `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
}

// writeMessage sends head as JSON and body, each with its length before it as four
// bytes (big endian). The body has at most limit bytes.
func writeMessage(w io.Writer, head any, body []byte, limit int) error {
	data, err := json.Marshal(head)
	if err != nil {
		return err
	}
	if len(data) > maxHead || len(body) > limit {
		return fmt.Errorf("message of %d+%d bytes: %w", len(data), len(body), ErrTooLarge)
	}
	message := make([]byte, 0, 8+len(data)+len(body))
	message = binary.BigEndian.AppendUint32(message, uint32(len(data)))
	message = append(message, data...)
	message = binary.BigEndian.AppendUint32(message, uint32(len(body)))
	_, err = w.Write(append(message, body...))
	return err
}

func readMessage(r io.Reader, head any, limit int) (body []byte, err error) {
	data, err := readPart(r, maxHead)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, head); err != nil {
		return nil, err
	}
	return readPart(r, limit)
}

// readPart reads a length and that many bytes. Memory grows with what has arrived,
// not with what was announced.
func readPart(r io.Reader, limit int) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(length[:])
	if int64(size) > int64(limit) {
		return nil, fmt.Errorf("message part of %d bytes: %w", size, ErrTooLarge)
	}
	var buffer bytes.Buffer
	n, err := io.Copy(&buffer, io.LimitReader(r, int64(size)))
	if err == nil && n < int64(size) {
		err = io.ErrUnexpectedEOF
	}
	return buffer.Bytes(), err
}
