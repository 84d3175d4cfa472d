package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/configs"
	"github.com/ipvs-ha/ipvs-ha/fsm"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// statusTimeout is how long a peer has to tell its status before it is called
// unreachable.
const statusTimeout = time.Second

// Status implements api.Agent: what every member says of itself.
func (a *Agent) Status(ctx context.Context) (api.Status, error) {
	state := a.node.State()
	status := api.Status{
		Cluster:  a.cfg.Cluster.Name,
		Leader:   state.LeaderName,
		Revision: a.machine.State().Revision(),
		Nodes:    make([]api.NodeStatus, len(state.Members)),
		Warnings: append(warnings(state), a.holdWarnings(state)...),
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, m := range state.Members {
		wg.Go(func() { status.Nodes[i] = a.memberStatus(ctx, m) })
	}
	wg.Wait()
	if len(state.Members) == 0 { // not a member of any cluster yet
		status.Nodes = []api.NodeStatus{a.nodeStatus()}
	}
	return status, nil
}

// memberStatus asks m for its status. One that waits to join answers nobody yet.
func (a *Agent) memberStatus(ctx context.Context, m cluster.Member) api.NodeStatus {
	if m.Waiting != "" && !m.Local {
		return a.silent(m, "cluster", "waits to join: "+m.Waiting)
	}
	answer, err := a.node.Call(ctx, m.ID, methodStatus, nil)
	var status api.NodeStatus
	if err == nil {
		err = json.Unmarshal(answer, &status)
	}
	if err != nil {
		status = a.silent(m, "", fmt.Sprintf("no answer: %v", err))
	}
	status.Voter = m.Voter
	if !m.Voter && !m.Witness && status.State != api.StateUnreachable {
		status.Eligible, status.Obstacles = false, append(status.Obstacles, "it does not vote yet")
	}
	return status
}

// silent is what there is to say of a member that says nothing itself.
func (a *Agent) silent(m cluster.Member, object, message string) api.NodeStatus {
	set := a.machine.State().Director(m.Name)
	obstacles := []string{"it cannot be reached"}
	if m.Witness {
		set, obstacles = fsm.Director{}, []string{}
	}
	return api.NodeStatus{
		Name: m.Name, Role: role(m.Witness), State: api.StateUnreachable,
		Obstacles: obstacles, Drained: set.Drained, Preference: set.Preference,
		SyncDaemons: []ipvs.Daemon{}, VIPs: []netip.Addr{}, Errors: []api.ObjectError{{Object: object, Message: message}},
	}
}

// nodeStatus is what this node says of itself.
func (a *Agent) nodeStatus() api.NodeStatus {
	state := a.node.State()
	status := api.NodeStatus{
		Name:            a.cfg.Node,
		Role:            role(a.loop == nil),
		Raft:            state.Raft,
		State:           api.StateWitness,
		AppliedRevision: a.machine.State().Revision(),
		SyncDaemons:     []ipvs.Daemon{},
		VIPs:            []netip.Addr{},
		Errors:          []api.ObjectError{},
		Obstacles:       []string{},
	}
	if state.Waiting != "" {
		status.Errors = append(status.Errors, api.ObjectError{Object: "cluster", Message: state.Waiting})
	}
	if a.loop == nil {
		return status
	}
	status.State = api.StateStandby
	if a.active.Load() {
		status.State = api.StateActive
	}
	h := a.health()
	fitness := h.fitness()
	status.Eligible, status.Obstacles = fitness.Class == 0, append(status.Obstacles, fitness.Reasons...)
	status.Drained, status.Preference = h.set.Drained, h.set.Preference
	loop := a.loop.Status()
	status.AppliedRevision = loop.AppliedRevision
	status.SyncDaemons = append(status.SyncDaemons, loop.Daemons...)
	status.Foreign = loop.ForeignCount
	status.ForeignServices = loop.Foreign
	status.DriftRepaired = loop.DriftRepaired
	a.vipStatus(&status)
	if a.inMemory {
		status.Errors = append(status.Errors, api.ObjectError{Object: "kernel", Message: "there is no ip_vs to be had here: the table is kept in memory and balances nothing"})
	}
	for _, w := range loop.Warnings {
		status.Errors = append(status.Errors, api.ObjectError{Object: "ownership record", Message: w})
	}
	for _, e := range loop.Errors {
		status.Errors = append(status.Errors, api.ObjectError{Object: e.Object, Message: e.Message})
	}
	if !a.caughtUp.Load() {
		waits := "waiting for a leader"
		if state.Leader != "" {
			waits = "catching up with the leader"
		}
		status.Errors = append(status.Errors, api.ObjectError{Object: "table", Message: waits + "; nothing is written to the kernel until this node has caught up"})
	}
	return status
}

// warnings are what an operator should know about the cluster as a whole.
func warnings(state cluster.State) []string {
	warnings := []string{}
	voters, directors := 0, 0
	for _, m := range state.Members {
		if m.Waiting != "" {
			continue
		}
		if m.Voter {
			voters++
		}
		if !m.Witness {
			directors++
		}
	}
	switch {
	case directors < 2:
		warnings = append(warnings, "not highly available: there is one director")
	case voters == 2:
		warnings = append(warnings, "not highly available: with two voters the loss of either stops changes and failover; add a director or a witness")
	}
	if reachable := countReachable(state); voters > 2 && state.LeaderName != "" && reachable == voters/2+1 {
		warnings = append(warnings, fmt.Sprintf("not highly available: %d of %d voters can be reached, and the loss of one more stops changes and failover", reachable, voters))
	}
	if state.Waiting == "" { // else it is among the reasons
		for _, who := range state.KeptOut {
			warnings = append(warnings, "kept out: "+who)
		}
	}
	for _, m := range state.Members {
		if m.OtherTimings != "" {
			warnings = append(warnings, fmt.Sprintf("%s has other timings than this node: %s; set cluster.profile and cluster.timing the same on all nodes, or a leader may get no lease and nobody owns the virtual addresses", m.Name, m.OtherTimings))
		}
	}
	if state.LeaderName == "" {
		warnings = append(warnings, "no leader: changes are refused until a majority of the voters can be reached")
	}
	return warnings
}

// holdWarnings are what an operator should know about on_quorum_loss: hold.
func (a *Agent) holdWarnings(state cluster.State) []string {
	if a.cfg.Cluster.OnQuorumLoss != configs.Hold {
		return nil
	}
	if state.Holds {
		return []string{fmt.Sprintf("%s holds the VIPs without a quorum (cluster.on_quorum_loss): the other director cannot be reached, changes are refused, and when %s is lost nobody has the VIPs", a.cfg.Node, a.cfg.Node)}
	}
	voters, witnesses := 0, 0
	for _, m := range state.Members {
		if m.Voter && m.Waiting == "" {
			voters++
			if m.Witness {
				witnesses++
			}
		}
	}
	if voters > 2 || voters == 2 && witnesses > 0 {
		return []string{fmt.Sprintf("cluster.on_quorum_loss: hold is ignored: it needs exactly two voters, both directors, and there are %d, %d of them witnesses", voters, witnesses)}
	}
	return nil
}

// countReachable is the number of voters that this node can reach, itself included.
func countReachable(state cluster.State) int {
	n := 0
	for _, m := range state.Members {
		if m.Voter && m.Reachable {
			n++
		}
	}
	return n
}

func role(witness bool) string {
	if witness {
		return api.RoleWitness
	}
	return api.RoleDirector
}
