package cluster

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// magic begins every connection, in both directions; the digit is the version.
const magic = "IPVS-HA1"

const maxPreface = 1 << 10 // bytes of JSON

// The types of stream that share the cluster port.
const (
	streamRaft    = "raft"
	streamRequest = "request"
)

// A preface is the first message of a connection: who calls whom, and for what.
type preface struct {
	Cluster   string `json:"cluster"`
	ClusterID string `json:"cluster_id,omitempty"` // "" before the caller has one
	ID        string `json:"id"`
	Address   string `json:"address"`      // where the caller is reached
	To        string `json:"to,omitempty"` // the id wanted; "" takes whoever is there
	Stream    string `json:"stream"`
}

// A prefaceAnswer is what the called node says before the stream begins.
type prefaceAnswer struct {
	ID      string `json:"id"`
	Refused string `json:"refused,omitempty"` // the reason; the connection ends
}

// writePreface sends magic, the length as two bytes (big endian) and v as JSON.
func writePreface(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > maxPreface {
		return fmt.Errorf("preface of %d bytes: %w", len(data), ErrTooLarge)
	}
	message := binary.BigEndian.AppendUint16([]byte(magic), uint16(len(data)))
	_, err = w.Write(append(message, data...))
	return err
}

// errTLS says that TLS was spoken where a preface was awaited.
var errTLS = errors.New("TLS, not the cluster port's protocol")

func readPreface(r io.Reader, v any) error {
	head := make([]byte, len(magic)+2)
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	if isClientHello(head) {
		return errTLS
	}
	if string(head[:len(magic)]) != magic {
		return errors.New("not the cluster port's protocol, or another version of it")
	}
	size := binary.BigEndian.Uint16(head[len(magic):])
	if size > maxPreface {
		return fmt.Errorf("preface of %d bytes: %w", size, ErrTooLarge)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}
