package track

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// echo asks one host by echo requests, over a raw socket.
type echo struct {
	conn     *icmp.PacketConn
	to       net.Addr
	protocol int // of the answers, for parsing
	ask      icmp.Type
	answer   icmp.Type
	id       uint16
	seq      uint16
}

func dialEcho(to netip.Addr) (asker, error) {
	var random [2]byte
	rand.Read(random[:]) // never fails
	e := &echo{
		to: &net.IPAddr{IP: to.AsSlice()}, id: binary.NativeEndian.Uint16(random[:]),
		protocol: 1, ask: ipv4.ICMPTypeEcho, answer: ipv4.ICMPTypeEchoReply,
	}
	network := "ip4:icmp"
	if to.Is6() {
		e.protocol, e.ask, e.answer = 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
		network = "ip6:ipv6-icmp"
	}
	conn, err := icmp.ListenPacket(network, "")
	if err != nil {
		return nil, fmt.Errorf("open a socket for echo requests: %w", err)
	}
	e.conn = conn
	return e, nil
}

func (e *echo) Close() error { return e.conn.Close() }

// Ask implements asker. Whatever else arrives at the host comes by here too.
func (e *echo) Ask(deadline time.Time) error {
	e.seq++
	request := icmp.Message{Type: e.ask, Body: &icmp.Echo{ID: int(e.id), Seq: int(e.seq)}}
	packet, err := request.Marshal(nil)
	if err != nil {
		return err
	}
	if err := e.conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := e.conn.WriteTo(packet, e.to); err != nil {
		return err
	}
	for buffer := make([]byte, 1500); ; {
		n, from, err := e.conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		answer, err := icmp.ParseMessage(e.protocol, buffer[:n])
		if err != nil || answer.Type != e.answer || from.String() != e.to.String() {
			continue
		}
		if body, ok := answer.Body.(*icmp.Echo); ok && body.ID == int(e.id) && body.Seq == int(e.seq) {
			return nil
		}
	}
}
