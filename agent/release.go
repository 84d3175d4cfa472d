package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/ipvs-ha/ipvs-ha/configs"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
	"github.com/ipvs-ha/ipvs-ha/syncd"
	"github.com/ipvs-ha/ipvs-ha/vip"
)

// Release takes away from this host what only the active director may have, without
// an agent: VIPs and then the fence at once, the master sync daemon when it has sent what
// it holds back, syncd.FlushTime later. The table stays. No agent may run with the same
// configuration, or it puts them back. Nothing to release is no error.
func Release(ctx context.Context, cfg configs.Config) error {
	return errors.Join(vip.Release(cfg.DataDir), unlessWitness(cfg.Role, stopMaster(ctx)))
}

// unlessWitness returns err, nil when a witness is not allowed to ask the kernel: it
// needs no privilege to run, and one that never had any has started no daemon.
func unlessWitness(role configs.Role, err error) error {
	if role == configs.Witness && errors.Is(err, os.ErrPermission) {
		return nil
	}
	return err
}

func stopMaster(ctx context.Context) error {
	client, err := kernel.Dial()
	if errors.Is(err, kernel.ErrNoModule) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("release the master daemon: %w", err)
	}
	return errors.Join(stopFlushed(ctx, client), client.Close())
}

// stopFlushed stops a master daemon that has no packets to tell of any more.
func stopFlushed(ctx context.Context, client *kernel.Client) error {
	daemons, err := client.Daemons(ctx)
	if err != nil || !slices.ContainsFunc(daemons, func(d ipvs.Daemon) bool { return d.State == ipvs.Master }) {
		return err
	}
	flushed := time.NewTimer(syncd.FlushTime)
	defer flushed.Stop()
	select {
	case <-flushed.C:
	case <-ctx.Done():
	}
	err = client.StopDaemon(context.WithoutCancel(ctx), ipvs.Master)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return err
}
