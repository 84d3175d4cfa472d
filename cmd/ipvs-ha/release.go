package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ipvs-ha/ipvs-ha/agent"
	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/configs"
)

func releaseCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "release --config FILE",
		Short: "Take this host's VIPs, fence and master daemon away, without an agent",
		Long: `Take away from this host what only the active director may have: VIPs and, 3 s later,
when it has sent what it holds back, the master sync daemon. The fence goes when all VIPs
are gone; while one may be left it stays, shut, and the error says so. The table and a
backup sync daemon stay. For a host whose agent is dead: systemd runs it after each stop.
It does nothing where there is nothing to release.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("release: want --config FILE")
			}
			cfg, err := configs.Load(file)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), api.DefaultTimeout)
			defer cancel()
			return agent.Release(ctx, cfg)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file of the agent")
	return cmd
}
