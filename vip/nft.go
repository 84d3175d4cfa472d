package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ipvs-ha/ipvs-ha/boottime"
)

const (
	// netlinkTimeout bounds the wait for an answer of the kernel.
	netlinkTimeout = 2 * time.Second
	// maxElements bounds the elements in one message: its attribute ends at 64 KiB.
	maxElements = 500
)

// nft is the fence in the kernel: two tables of our own. Its sockets stay open: to
// close one after a transaction waits until no CPU can see what that removed, tens of
// milliseconds. After a failure they are replaced, so that the late answer to one
// request is never taken for another's.
type nft struct {
	rules     *nftables.Conn // nil: to be opened
	socket    *netlink.Conn  // of rules
	gens      *netlink.Conn  // for the ruleset's generation; nil: to be opened
	covered   int            // addresses in the sets
	permitted bool           // a permit was given; it may have ended
	gen       uint32         // the ruleset's generation after our last transaction; 0 = not known
}

// open returns the connection for the next transactions, with a new deadline.
func (f *nft) open() (*nftables.Conn, error) {
	if f.rules == nil {
		conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
			f.socket = c
			return nil
		}))
		if err != nil {
			return nil, err
		}
		f.rules = conn
	}
	return f.rules, f.socket.SetDeadline(time.Now().Add(netlinkTimeout))
}

// Close implements fence.
func (f *nft) Close() {
	if f.rules != nil {
		_ = f.rules.CloseLasting()
		f.rules, f.socket = nil, nil
	}
	if f.gens != nil {
		_ = f.gens.Close()
		f.gens = nil
	}
}

// commit carries out a transaction.
func (f *nft) commit(fill func(*nftables.Conn) error) error {
	conn, err := f.open()
	if err == nil {
		err = fill(conn)
	}
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		f.Close() // with what was filled in, and what may still be answered
		f.gen = 0
		return err // ENOENT matches os.ErrNotExist
	}
	if f.gen != 0 {
		f.gen++
		if f.gen == 0 { // the kernel leaves 0 out
			f.gen = 1
		}
	}
	return nil
}

// Covered implements fence.
func (f *nft) Covered() (_ []netip.Addr, err error) {
	defer f.closeAfter(&err)
	conn, err := f.open()
	if err != nil {
		return nil, err
	}
	if _, err := conn.ListTableOfFamily(inetTable.Name, inetTable.Family); errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read table %s: %w", inetTable.Name, os.ErrNotExist)
	} else if err != nil {
		return nil, fmt.Errorf("read table %s: %w", inetTable.Name, err)
	}
	var addrs []netip.Addr
	for _, s := range []*nftables.Set{vips4, vips6} {
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", s.Name, err)
		}
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs, nil
}

// Build implements fence.
func (f *nft) Build(addrs []netip.Addr) error {
	err := f.commit(func(c *nftables.Conn) error {
		for _, t := range fenceTables {
			c.AddTable(t) // so that there is one to delete
			c.DelTable(t)
			c.AddTable(t)
		}
		for _, s := range sets {
			if err := c.AddSet(s, nil); err != nil {
				return err
			}
		}
		for _, ch := range chains {
			c.AddChain(ch.chain)
			for _, exprs := range ch.rules {
				c.AddRule(&nftables.Rule{Table: ch.chain.Table, Chain: ch.chain, Exprs: exprs})
			}
		}
		return addElements(c, addrs)
	})
	if err != nil {
		return fmt.Errorf("build the fence: %w", err)
	}
	f.covered, f.permitted = len(addrs), false
	return nil
}

// Change implements fence.
func (f *nft) Change(cover, uncover []netip.Addr) error {
	err := f.commit(func(c *nftables.Conn) error {
		for s, elements := range elementsOf(uncover) {
			for chunk := range slices.Chunk(elements, maxElements) {
				if err := c.SetDeleteElements(s, chunk); err != nil {
					return err
				}
			}
		}
		return addElements(c, cover)
	})
	if err != nil {
		return fmt.Errorf("change what the fence covers: %w", err)
	}
	f.covered += len(cover) - len(uncover)
	return nil
}

// Permit implements fence. The kernel may take a transaction long after it was sent,
// when another is in its way, and a permit runs from then. So each one is given in
// exchange for an element that is alive: for the permit before, or else for a claim,
// which is made first, opens nothing, and ends long before d.
func (f *nft) Permit(d time.Duration) error {
	if d < minPermit {
		return fmt.Errorf("permit for %s: %w", d, os.ErrInvalid)
	}
	give := deletePermits
	if !f.permitted {
		began := boottime.Now()
		life := (d / 2).Truncate(time.Millisecond)
		if life < minPermit {
			return fmt.Errorf("claim a permit for %s: %w", d, errLate)
		}
		err := f.commit(func(c *nftables.Conn) error {
			flushPermits(c)
			return addClaims(c, life)
		})
		if err != nil {
			return fmt.Errorf("claim a permit: %w", err)
		}
		took := boottime.Now() - began
		if took > d-life {
			return fmt.Errorf("claim a permit for %s: it took %s: %w", d, took, errLate)
		}
		give, d = deleteClaims, (d - took).Truncate(time.Millisecond)
	}
	err := f.commit(func(c *nftables.Conn) error { return errors.Join(give(c), addPermits(c, d)) })
	f.permitted = err == nil
	switch {
	case isGone(err):
		return fmt.Errorf("open the fence: %w: %w", errLate, err)
	case err != nil:
		return fmt.Errorf("open the fence: %w", err)
	}
	return nil
}

// Shut implements fence.
func (f *nft) Shut() error {
	err := f.commit(func(c *nftables.Conn) error {
		flushPermits(c) // unlike a deletion it does not fail when the permit has ended
		return nil
	})
	if err != nil {
		return fmt.Errorf("shut the fence: %w", err)
	}
	f.permitted = false
	f.gen = 0 // it counts only when there was a permit, and one may have ended by itself
	return nil
}

// Remove implements fence.
func (f *nft) Remove() error {
	ours, err := f.tables()
	if err == nil && len(ours) > 0 {
		err = f.commit(func(c *nftables.Conn) error {
			for _, t := range ours {
				c.DelTable(t)
			}
			return nil
		})
	}
	if err != nil && !isGone(err) {
		return fmt.Errorf("remove the fence: %w", err)
	}
	f.covered, f.permitted, f.gen = 0, false, 0
	return nil
}

// tables returns which of the fence's tables are there.
func (f *nft) tables() (_ []*nftables.Table, err error) {
	defer f.closeAfter(&err)
	var there []*nftables.Table
	for _, t := range fenceTables {
		conn, err := f.open()
		if err == nil {
			_, err = conn.ListTableOfFamily(t.Name, t.Family)
		}
		switch {
		case err == nil:
			there = append(there, t)
		case !isGone(err) && !isUnsupported(err):
			return nil, fmt.Errorf("read table %s: %w", t.Name, err)
		}
	}
	return there, nil
}

// isUnsupported reports whether err says that this kernel has no nftables: it knows no
// such socket, or has nobody who takes such requests, which it says in two ways.
func isUnsupported(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// closeAfter closes the sockets when *err is one.
func (f *nft) closeAfter(err *error) {
	if *err != nil {
		f.Close()
	}
}

// Check implements fence. It reads the rules only when somebody else has changed
// the ruleset since.
func (f *nft) Check() (err error) {
	defer f.closeAfter(&err)
	gen, err := f.generation()
	if err != nil {
		return fmt.Errorf("read the ruleset's generation: %w", err)
	}
	if gen == f.gen {
		return nil
	}
	conn, err := f.open()
	if err != nil {
		return err
	}
	for _, ch := range chains {
		rules, err := conn.GetRules(ch.chain.Table, ch.chain)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("read chain %s: %w", ch.chain.Name, err)
		}
		if len(rules) != len(ch.rules) {
			return fmt.Errorf("chain %s %s has %d rules instead of %d: %w", ch.chain.Table.Name, ch.chain.Name, len(rules), len(ch.rules), os.ErrNotExist)
		}
	}
	addrs, err := f.Covered()
	if err != nil {
		return err
	}
	if len(addrs) != f.covered {
		return fmt.Errorf("the fence covers %d addresses instead of %d: %w", len(addrs), f.covered, os.ErrNotExist)
	}
	f.gen = gen
	return nil
}

// generation returns the number of the ruleset, which each transaction that changes
// something raises by 1.
func (f *nft) generation() (uint32, error) {
	if f.gens == nil {
		conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return 0, err
		}
		f.gens = conn
	}
	if err := f.gens.SetDeadline(time.Now().Add(netlinkTimeout)); err != nil {
		return 0, err
	}
	const header = 4 // struct nfgenmsg
	answer, err := f.gens.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   make([]byte, header),
	})
	if err != nil {
		return 0, err
	}
	if len(answer) == 0 || len(answer[0].Data) < header {
		return 0, errors.New("the answer is empty")
	}
	attributes, err := netlink.NewAttributeDecoder(answer[0].Data[header:])
	if err != nil {
		return 0, err
	}
	attributes.ByteOrder = binary.BigEndian
	var gen uint32
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_GEN_ID {
			gen = attributes.Uint32()
		}
	}
	return gen, attributes.Err()
}
