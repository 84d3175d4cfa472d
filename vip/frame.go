package vip

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

var (
	broadcast   = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	allNodes    = netip.MustParseAddr("ff02::1")
)

const (
	etherSize = 14 // destination, source, type
	arpSize   = 28 // for Ethernet and IPv4
	ip6Size   = 40
	naSize    = 24 // type, code, checksum, flags, target
	hopLimit  = 255
)

// announcement returns the frame that makes mac known as the place of a, and where
// to send it: a gratuitous ARP request for IPv4, an unsolicited neighbour
// advertisement for IPv6. router says whether this host forwards IPv6: hosts drop a
// default router that says it is none.
func announcement(a netip.Addr, mac net.HardwareAddr, router bool) (frame []byte, to net.HardwareAddr) {
	if a.Is4() {
		return gratuitousARP(a, mac), broadcast
	}
	return unsolicitedNA(a, mac, router), allNodesMAC
}

func ether(to, from net.HardwareAddr, protocol uint16) []byte {
	frame := make([]byte, 0, 128)
	frame = append(frame, to...)
	frame = append(frame, from...)
	return binary.BigEndian.AppendUint16(frame, protocol)
}

func gratuitousARP(a netip.Addr, mac net.HardwareAddr) []byte {
	f := ether(broadcast, mac, unix.ETH_P_ARP)
	f = append(f, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, their lengths, request
	f = append(f, mac...)
	f = append(f, a.AsSlice()...)
	f = append(f, make([]byte, 6)...)
	return append(f, a.AsSlice()...)
}

func unsolicitedNA(a netip.Addr, mac net.HardwareAddr, router bool) []byte {
	const override, isRouter = 0x20, 0x80
	flags := byte(override)
	if router {
		flags |= isRouter
	}
	message := []byte{neighbourAdvertisement, 0, 0, 0, flags, 0, 0, 0}
	message = append(message, a.AsSlice()...)
	message = append(message, targetLinkLayer, 1)
	message = append(message, mac...)
	binary.BigEndian.PutUint16(message[2:], checksum6(a, allNodes, message))

	f := ether(allNodesMAC, mac, unix.ETH_P_IPV6)
	f = append(f, 6<<4, 0, 0, 0)
	f = binary.BigEndian.AppendUint16(f, uint16(len(message)))
	f = append(f, unix.IPPROTO_ICMPV6, hopLimit)
	f = append(f, a.AsSlice()...)
	f = append(f, allNodes.AsSlice()...)
	return append(f, message...)
}

// targetLinkLayer is the option of a neighbour advertisement that holds the MAC
// address, of 8 bytes.
const targetLinkLayer = 2

// checksum6 returns the ICMPv6 checksum of a message whose checksum is zero.
func checksum6(from, to netip.Addr, message []byte) uint16 {
	pseudo := append(from.AsSlice(), to.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(message)))
	pseudo = append(pseudo, 0, 0, 0, unix.IPPROTO_ICMPV6)
	pseudo = append(pseudo, message...)
	var sum uint32
	for ; len(pseudo) > 1; pseudo = pseudo[2:] {
		sum += uint32(binary.BigEndian.Uint16(pseudo))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// spokenFor returns the address that a frame says belongs to a MAC address: the
// sender of an ARP message, the target of a neighbour advertisement.
func spokenFor(frame []byte) (a netip.Addr, mac net.HardwareAddr, ok bool) {
	if len(frame) < etherSize {
		return a, nil, false
	}
	body := frame[etherSize:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_ARP:
		if len(body) < arpSize || !bytes.Equal(body[:6], []byte{0, 1, 8, 0, 6, 4}) {
			return a, nil, false
		}
		a, ok = netip.AddrFromSlice(body[14:18])
		return a, net.HardwareAddr(body[8:14]), ok
	case unix.ETH_P_IPV6:
		if len(body) < ip6Size+naSize || body[6] != unix.IPPROTO_ICMPV6 || body[7] != hopLimit || body[ip6Size] != neighbourAdvertisement {
			return a, nil, false
		}
		message := body[ip6Size:]
		a, ok = netip.AddrFromSlice(message[8:24])
		mac = net.HardwareAddr(frame[6:12])
		if option := message[naSize:]; len(option) >= 8 && option[0] == targetLinkLayer && option[1] == 1 {
			mac = net.HardwareAddr(option[2:8])
		}
		return a, mac, ok
	}
	return a, nil, false
}
