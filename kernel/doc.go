// Package kernel configures Linux IPVS over generic netlink: every command and
// every attribute of linux/ip_vs.h, the connection-sync daemons included.
//
// A [Client] edits in place where the kernel can: only the identity of a virtual
// service or a destination needs a delete and an add. Values are those of package
// ipvs. What the kernel would silently misread, for example an IPv4-mapped
// address, is refused before it is sent; everything else is the kernel's to
// refuse, and an [OpError] says what it meant.
//
// The kernel reports no changes of IPVS: whoever wants to know has to read.
// IPVS_CMD_SET_INFO is defined in the header but not implemented by any kernel.
//
// Every command, reading included, needs CAP_NET_ADMIN in the initial user
// namespace. Dialing loads the ip_vs module where modprobe can (Linux 5.15).
//
// Out of scope: deciding what a table should hold, reading the connection table,
// sysctls, and the old setsockopt interface.
package kernel
