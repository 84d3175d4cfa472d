package agent

import (
	"context"
	"slices"
	"testing"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel/memkernel"
	"github.com/ipvs-ha/ipvs-ha/reconcile"
	"github.com/ipvs-ha/ipvs-ha/syncd"
)

// An agent that stops leaves a kernel that hears of connections, whatever its role was.
func TestStopLeavesABackup(t *testing.T) {
	loop, err := reconcile.New(reconcile.Config{Kernel: memkernel.New(), DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	a := &Agent{loop: loop}
	daemons := func(role syncd.Role, want ...ipvs.DaemonState) {
		t.Helper()
		number := loop.Set(reconcile.Desired{Role: role, Interface: "lo", Cluster: "lb"})
		for rounds := loop.Changed(); loop.Status().Seen < number; rounds = loop.Changed() {
			<-rounds
		}
		a.awaitBackup()
		var have []ipvs.DaemonState
		for _, d := range loop.Status().Daemons {
			have = append(have, d.State)
		}
		if !slices.Equal(have, want) {
			t.Errorf("%s: %v run, want %v", role, have, want)
		}
	}
	daemons(syncd.Active, ipvs.Master) // nobody took the role: it does not wait for ever
	daemons(syncd.Standby, ipvs.Master, ipvs.Backup)
}
