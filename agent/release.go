package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/ipvs-ha/ipvs-ha/configs"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/vip"
)

// Release takes away from this host what only the active director may have, without
// an agent: VIPs, the fence's permit and the master sync daemon. The table stays. No
// agent may run with the same configuration, or it puts them back. Nothing to release
// is no error.
func Release(ctx context.Context, cfg configs.Config) error {
	return errors.Join(vip.Release(cfg.DataDir), stopMaster(ctx))
}

func stopMaster(ctx context.Context) error {
	client, err := kernel.Dial()
	if errors.Is(err, kernel.ErrNoModule) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("release the master daemon: %w", err)
	}
	err = client.StopDaemon(ctx, ipvs.Master)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, client.Close())
}
