package agent

import (
	"log/slog"

	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/configs"
	"github.com/ipvs-ha/ipvs-ha/fsm"
)

// OpenRecovery looks at what the stopped node of this configuration has of a cluster
// that has lost its majority; see cluster.OpenRecovery, whose errors it returns.
func OpenRecovery(cfg configs.Config, dead []string, log *slog.Logger) (*cluster.Recovery, error) {
	a := &Agent{cfg: cfg, log: log, machine: fsm.New(nil)}
	return cluster.OpenRecovery(a.clusterConfig(), dead)
}
