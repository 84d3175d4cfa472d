// Package ipvs is the vocabulary of Linux IPVS: virtual services, their
// destinations, connection-sync daemons and timeouts, as plain values, with the
// rules that say which of them are valid and what differs between two tables.
//
// It imports nothing but the standard library, does no I/O, reads no clock and
// starts no goroutine. How the values reach a kernel is package kernel's
// business; who decides on them is not known here.
package ipvs
