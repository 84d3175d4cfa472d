package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"

	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/kernel"
)

// A virtual service with a destination, added or brought up to date.
func Example() {
	ctx := context.Background()
	c, err := kernel.Dial()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	s := ipvs.Service{
		Key:       ipvs.ServiceAt(ipvs.TCP, netip.MustParseAddrPort("10.9.0.100:80")),
		Scheduler: "wrr",
	}
	err = c.AddService(ctx, s)
	if errors.Is(err, os.ErrExist) {
		err = c.SetService(ctx, s)
	}
	if err != nil {
		log.Fatal(err)
	}
	err = c.AddDestination(ctx, s.Key, ipvs.Destination{
		Addr:    netip.MustParseAddrPort("10.9.0.21:80"),
		Forward: ipvs.DRoute,
		Weight:  1,
	})
	if err != nil && !errors.Is(err, os.ErrExist) {
		log.Fatal(err)
	}
}

// A master sync daemon multicasts the state of this host's connections to the
// backup daemons of others.
func ExampleClient_StartDaemon() {
	ctx := context.Background()
	c, err := kernel.Dial()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	err = c.StartDaemon(ctx, ipvs.Daemon{State: ipvs.Master, Interface: "eth0", SyncID: 7})
	if err != nil && !errors.Is(err, os.ErrExist) {
		log.Fatal(err)
	}
	daemons, err := c.Daemons(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range daemons {
		fmt.Printf("%s on %s, id %d\n", d.State, d.Interface, d.SyncID)
	}
}
