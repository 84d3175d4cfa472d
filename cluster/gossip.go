package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	gossipJoinInterval = 10 * time.Second // between attempts to meet unknown peers
	gossipLoneInterval = time.Second      // the same while it has met nobody
	gossipTCPTimeout   = time.Second
	maxGossip          = 4 * maxJoin // nodes of which it is remembered what they tell
	gossipLeaveTimeout = 500 * time.Millisecond
)

// gossipMeta is what a node tells by gossip: at most 512 bytes of JSON.
type gossipMeta struct {
	Address string `json:"a"` // of its cluster port
	Name    string `json:"n"`
}

// A gossip finds the addresses of nodes that are not in the join list. It is a
// hint: nobody becomes or ceases to be a member by it.
type gossip struct {
	cfg   Config
	id    string
	log   *slog.Logger
	peers func() []string // cluster addresses of nodes known otherwise

	mu    sync.Mutex
	metas map[string]string // what each node of this gossip tells, by id
}

// run gossips until ctx ends. Without a gossip port it does nothing.
func (g *gossip) run(ctx context.Context) error {
	if g.cfg.GossipPort == 0 {
		return nil
	}
	meta, err := json.Marshal(gossipMeta{Address: g.cfg.advertised(), Name: g.cfg.Node})
	if err != nil {
		return err
	}
	config := memberlist.DefaultLANConfig()
	config.Name = g.id
	config.BindAddr, config.BindPort = g.cfg.Address.String(), g.cfg.GossipPort
	config.AdvertiseAddr, config.AdvertisePort = config.BindAddr, config.BindPort
	config.Label = g.cfg.Cluster
	if g.cfg.Secret != nil {
		keys, err := g.cfg.Secret.GossipKeys()
		if err == nil {
			config.Keyring, err = memberlist.NewKeyring(keys, keys[0])
		}
		if err != nil {
			return fmt.Errorf("gossip keys: %w", err)
		}
	}
	config.TCPTimeout = gossipTCPTimeout
	config.Delegate, config.Events = metaDelegate(meta), g
	config.Logger = log.New(gossipLog{newQuiet(g.log)}, "", 0)
	list, err := memberlist.Create(config)
	if err != nil {
		return fmt.Errorf("gossip port: %w", err)
	}
	for {
		for _, address := range g.peers() {
			if ctx.Err() == nil && address != g.cfg.advertised() {
				// A peer that is down is no error: it is tried again.
				_, _ = list.Join([]string{gossipAddress(address, g.cfg.GossipPort)})
			}
		}
		interval := gossipJoinInterval
		if list.NumMembers() == 1 {
			interval = gossipLoneInterval
		}
		select {
		case <-ctx.Done():
			_ = list.Leave(gossipLeaveTimeout) // a courtesy: peers notice anyway
			if err := list.Shutdown(); err != nil {
				return fmt.Errorf("gossip: %w", err)
			}
			return nil
		case <-time.After(interval):
		}
	}
}

// addresses returns the cluster addresses of the nodes that gossip names.
func (g *gossip) addresses() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var addresses []string
	for _, id := range slices.Sorted(maps.Keys(g.metas)) {
		var meta gossipMeta
		if err := json.Unmarshal([]byte(g.metas[id]), &meta); err != nil {
			continue
		}
		if address, err := peerAddress(meta.Address, 0); err == nil && len(addresses) < maxJoin {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

// NotifyJoin implements memberlist.EventDelegate. What Members returns is written to by
// memberlist later; it is only safe to read here.
func (g *gossip) NotifyJoin(node *memberlist.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, known := g.metas[node.Name]; known || len(g.metas) < maxGossip {
		g.metas[node.Name] = string(node.Meta)
	}
}

// NotifyUpdate implements memberlist.EventDelegate.
func (g *gossip) NotifyUpdate(node *memberlist.Node) { g.NotifyJoin(node) }

// NotifyLeave implements memberlist.EventDelegate.
func (g *gossip) NotifyLeave(node *memberlist.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.metas, node.Name)
}

// A metaDelegate only tells its bytes.
type metaDelegate []byte

func (m metaDelegate) NodeMeta(int) []byte           { return m }
func (metaDelegate) NotifyMsg([]byte)                {}
func (metaDelegate) GetBroadcasts(int, int) [][]byte { return nil }
func (metaDelegate) LocalState(bool) []byte          { return nil }
func (metaDelegate) MergeRemoteState([]byte, bool)   {}
