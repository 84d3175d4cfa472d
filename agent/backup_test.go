package agent

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
	"github.com/ipvs-ha/ipvs-ha/reconcile"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// An agent that stops leaves a kernel that hears of connections, whatever its role was.
func TestStopLeavesABackup(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		loop, err := reconcile.New(reconcile.Config{Kernel: memkernel.New(), DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- loop.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		a := &Agent{loop: loop}
		daemons := func(role syncd.Role, takes time.Duration, want ...ipvs.DaemonState) {
			t.Helper()
			loop.Set(reconcile.Desired{Role: role, Interface: "lo", Cluster: "lb"})
			synctest.Wait()
			began := time.Now()
			a.awaitBackup()
			var have []ipvs.DaemonState
			for _, d := range loop.Status().Daemons {
				have = append(have, d.State)
			}
			if took := time.Since(began); !slices.Equal(have, want) || took != takes {
				t.Errorf("%s: %v run after %v, want %v after %v", role, have, took, want, takes)
			}
		}
		daemons(syncd.Active, 2*syncd.YieldTime, ipvs.Master) // nobody took the role: it does not wait for ever
		daemons(syncd.Standby, syncd.YieldTime, ipvs.Master, ipvs.Backup)
		daemons(syncd.Standby, 0, ipvs.Master, ipvs.Backup)
	})
}
