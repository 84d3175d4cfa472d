package kernel

import (
	"syscall"

	"github.com/mdlayher/netlink"
)

// What goes to the kernel in one system call. The kernel keeps a message of almost
// 1 KiB for each refusal until it is read, and loses those that find no room: 200
// have room in the smallest receive buffer in use.
const (
	maxUnread = 200      // requests
	maxBytes  = 64 << 10 // of requests
)

// batch is a number of edits, which are sent together and carried out in order.
//
// Only the last asks for an acknowledgement. The kernel answers each request that it
// refuses, whether asked or not, in order and with its sequence number, and works
// through all of them before it returns. So the answer to the last says that those
// before it which have none are done. (Stopping a sync daemon may end without any
// answer, see StopDaemon; edits of services and destinations never do.)
type batch struct {
	buffer  []byte
	starts  []int   // of each request in buffer
	changes []int   // the index of each request's change
	errs    []error // the outcome of each, nil for those done
}

func (b *batch) len() int { return len(b.starts) }

func (b *batch) reset() {
	b.buffer, b.starts, b.changes, b.errs = b.buffer[:0], b.starts[:0], b.changes[:0], b.errs[:0]
}

// full reports whether another request would be too much; none has more than 1 KiB.
func (b *batch) full() bool { return len(b.starts) == maxUnread || len(b.buffer) > maxBytes-1<<10 }

// add appends the request for the change at index. It has passed Check.
func (b *batch) add(index int, r Request) {
	b.starts = append(b.starts, len(b.buffer))
	b.changes = append(b.changes, index)
	b.errs = append(b.errs, nil)
	b.buffer = appendRequest(b.buffer, r)
}

// stamp addresses the requests, with sequence numbers from first on.
func (b *batch) stamp(family uint16, first uint32) {
	for i, start := range b.starts {
		m := b.buffer[start:]
		stamp(m, family, first+uint32(i))
		flags := netlink.Request
		if i == len(b.starts)-1 {
			flags |= netlink.Acknowledge
		}
		putFlags(m, flags)
	}
}

// answer takes m, which answers the request at index, as the answer to it and, when
// that is none of the first known, to those before. It returns how many are answered
// now.
func (b *batch) answer(known int, m message, index uint32) (int, error) {
	if m.kind != netlink.Error || index >= uint32(b.len()) || int(index) < known {
		return known, errStray
	}
	errno, err := m.verdict()
	if err != nil {
		return known, err
	}
	if errno != 0 {
		b.errs[index] = refused(errno)
	}
	return int(index) + 1, nil
}

// fail gives err to the requests from the given one on.
func (b *batch) fail(from int, err error) {
	for i := from; i < len(b.errs); i++ {
		b.errs[i] = err
	}
}

// missing returns the requests that were answered with ENOENT, as a batch whose
// changes are their places in b.
func (b *batch) missing() *batch {
	again := &batch{}
	for i, err := range b.errs {
		if err != refused(syscall.ENOENT) {
			continue
		}
		end := len(b.buffer)
		if i+1 < len(b.starts) {
			end = b.starts[i+1]
		}
		again.starts = append(again.starts, len(again.buffer))
		again.changes = append(again.changes, i)
		again.errs = append(again.errs, nil)
		again.buffer = append(again.buffer, b.buffer[b.starts[i]:end]...)
	}
	return again
}
