package kernel

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// Daemons returns the running sync daemons, the master first, with the kernel's
// values for what was left to it. It is no sign of health: a daemon whose interface
// is gone, or gone and back, is still listed but neither sends nor receives.
func (c *Client) Daemons(ctx context.Context) ([]ipvs.Daemon, error) {
	daemons, err := read(ctx, c.link, Request{Op: OpDaemons}, decodeDaemon)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(daemons, func(a, b ipvs.Daemon) int { return cmp.Compare(a.State, b.State) })
	return daemons, nil
}

// StartDaemon starts a sync daemon; what is zero in d is left to the kernel, see
// ipvs.Daemon. The error matches os.ErrExist when one of that role runs, whatever
// its parameters, syscall.ENODEV when there is no such interface, and
// syscall.ENETUNREACH or EADDRNOTAVAIL when a master's interface is down or not
// ready.
func (c *Client) StartDaemon(ctx context.Context, d ipvs.Daemon) error {
	err := c.do(ctx, Request{Op: OpStartDaemon, Daemon: d})
	return err
}

// stopAnswer is how long StopDaemon waits for an answer. It is on its way when the
// request has been sent, or it never comes.
const stopAnswer = time.Second

// StopDaemon stops the sync daemon of a role. The error matches os.ErrNotExist when
// none runs. What a master has not sent yet, up to 2 s of changes, is lost.
func (c *Client) StopDaemon(ctx context.Context, role ipvs.DaemonState) error {
	r := Request{Op: OpStopDaemon, Daemon: ipvs.Daemon{State: role}}
	err := c.doWithin(ctx, r, min(stopAnswer, c.link.timeout))
	if !errors.Is(err, ErrUnanswered) || ctx.Err() != nil {
		return err
	}
	// Stopping a daemon that has not begun to run succeeds with EINTR inside the
	// kernel, for which generic netlink sends no answer. So look.
	daemons, listErr := c.Daemons(ctx)
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	if slices.ContainsFunc(daemons, func(d ipvs.Daemon) bool { return d.State == role }) {
		return err
	}
	return nil
}
