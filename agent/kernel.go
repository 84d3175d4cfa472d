package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
	"github.com/ipvs-ha/ipvs-ha/reconcile"
)

// openKernel opens this host's IPVS and returns what closes it. A kernel without
// ip_vs is an error of every use, not of the start, since the module may come later
// and a director votes without it too. With opts.Dev a kernel in memory stands in.
func (a *Agent) openKernel(ctx context.Context, opts Options) (reconcile.Kernel, func() error, error) {
	if opts.Kernel != nil {
		return opts.Kernel, func() error { return nil }, nil
	}
	client, err := kernel.Dial(kernel.Later())
	if err != nil {
		return nil, nil, fmt.Errorf("open the kernel's IPVS: %w", err)
	}
	if !opts.Dev {
		return client, client.Close, nil
	}
	_, err = client.Info(ctx)
	if err == nil {
		a.log.Warn("this machine's own kernel is programmed, and keeps the table when the agent stops")
		return client, client.Close, nil
	}
	if !errors.Is(err, kernel.ErrNoModule) && !errors.Is(err, os.ErrPermission) {
		return nil, nil, errors.Join(err, client.Close())
	}
	a.inMemory = true
	a.log.Warn("no IPVS to be had here: the table is kept in memory and balances nothing", "reason", err)
	return memkernel.New(), client.Close, nil
}
