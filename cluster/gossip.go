package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	gossipJoinInterval = 10 * time.Second // between attempts to meet unknown peers
	gossipLoneInterval = time.Second      // the same while it has met nobody
	gossipTCPTimeout   = time.Second
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

	list atomic.Pointer[memberlist.Memberlist]
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
	config.Delegate = metaDelegate(meta)
	config.Logger = log.New(gossipLog{newQuiet(g.log)}, "", 0)
	list, err := memberlist.Create(config)
	if err != nil {
		return fmt.Errorf("gossip port: %w", err)
	}
	g.list.Store(list)
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
	list := g.list.Load()
	if list == nil {
		return nil
	}
	var addresses []string
	for _, node := range list.Members() {
		var meta gossipMeta
		if err := json.Unmarshal(node.Meta, &meta); err != nil {
			continue
		}
		if address, err := peerAddress(meta.Address, 0); err == nil && len(addresses) < maxJoin {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

// A metaDelegate only tells its bytes.
type metaDelegate []byte

func (m metaDelegate) NodeMeta(int) []byte           { return m }
func (metaDelegate) NotifyMsg([]byte)                {}
func (metaDelegate) GetBroadcasts(int, int) [][]byte { return nil }
func (metaDelegate) LocalState(bool) []byte          { return nil }
func (metaDelegate) MergeRemoteState([]byte, bool)   {}
