// Package vip makes this host answer for the cluster's addresses, the VIPs, while
// it may, and not a moment longer.
//
// Who may is decided elsewhere and said with a deadline, in time since boot. The
// Keeper hands the deadline to the kernel: a fence of nftables rules drops every
// packet to a VIP, and everything that is said in a VIP's name, unless a permit is
// alive, and the permit has a timeout. So the end comes on time even when this
// process was killed, is stopped or waits for something. The addresses have a
// lifetime of a few seconds, which cleans up after a crash.
//
// The fence stands in the input hook, before IPVS sees a packet. It covers every
// VIP of the cluster on every director, so that an address that is there by mistake
// does not answer either. Not covered: services that match by firewall mark without
// a VIP, packets that are routed through this host, replies of NAT, and frames that
// a process sends through a packet socket. The Keeper's own announcements are such
// frames: it checks the clock right before each.
//
// An address that the host has by other means is never taken and never removed. A
// record on disk, written before an address is added, says which are ours.
package vip
