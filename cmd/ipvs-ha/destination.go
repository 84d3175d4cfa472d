package main

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func destinationCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "destination",
		Short: "Add, change or delete one destination of a virtual service",
		Args:  cobra.NoArgs,
		RunE:  group,
	}
	var addFlags, setFlags destinationFlags
	add := &cobra.Command{
		Use:     "add SERVICE ADDRESS:PORT",
		Short:   "Add a destination",
		Example: "  ipvs-ha destination add tcp://10.9.0.100:80 10.9.0.21:80 --forward droute --weight 1",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, addr, err := parseTarget(args)
			if err != nil {
				return err
			}
			d := ipvs.DefaultDestination
			d.Addr = addr
			if err := addFlags.change(cmd, &d); err != nil {
				return err
			}
			return o.write(cmd, api.Write{Changes: []ipvs.Change{{Op: ipvs.AddDestination, Key: key, Destination: &d}}})
		},
	}
	addFlags.add(add)
	set := &cobra.Command{
		Use:     "set SERVICE ADDRESS:PORT",
		Short:   "Change a destination; what is not named stays",
		Example: "  ipvs-ha destination set tcp://10.9.0.100:80 10.9.0.21:80 --weight 0",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, addr, err := parseTarget(args)
			if err != nil {
				return err
			}
			return o.edit(cmd, key, func(s ipvs.Service) (ipvs.Change, error) {
				d, ok := s.Destination(addr)
				if !ok {
					return ipvs.Change{}, fmt.Errorf("%s: no destination %s", key, addr)
				}
				err := setFlags.change(cmd, &d)
				return ipvs.Change{Op: ipvs.SetDestination, Key: key, Destination: &d}, err
			})
		},
	}
	setFlags.add(set)
	del := &cobra.Command{
		Use:   "delete SERVICE ADDRESS:PORT",
		Short: "Delete a destination",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, addr, err := parseTarget(args)
			if err != nil {
				return err
			}
			return o.write(cmd, api.Write{Changes: []ipvs.Change{{Op: ipvs.DeleteDestination, Key: key, Address: addr}}})
		},
	}
	cmd.AddCommand(add, set, del)
	writeFlags(cmd, o)
	return cmd
}

func parseTarget(args []string) (ipvs.ServiceKey, netip.AddrPort, error) {
	key, err := parseService(args[0])
	if err != nil {
		return key, netip.AddrPort{}, err
	}
	addr, err := ipvs.ParseAddrPort(args[1])
	if err != nil {
		return key, addr, usagef("destination %w", err)
	}
	if err := ipvs.CheckUnicast(addr.Addr()); err != nil {
		return key, addr, usagef("destination %q: %w", args[1], err)
	}
	return key, addr, nil
}

// destinationFlags are the settings of a destination as flags.
type destinationFlags struct {
	forward, tunnelType, tunnelChecksum, name, comment string
	weight, upper, lower                               int32
	tunnelPort                                         uint16
}

func (f *destinationFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.forward, "forward", "droute", "forwarding method: masq, droute or tunnel")
	numberFlag(flags, &f.weight, "weight", "w", 1, 0, math.MaxInt32, "weight; 0 takes no new connections")
	numberFlag(flags, &f.upper, "upper", "x", 0, 0, math.MaxInt32, "connections at which it takes no new ones; 0 = no limit")
	numberFlag(flags, &f.lower, "lower", "y", 0, 0, math.MaxInt32, "connections below which it takes new ones again; needs --upper")
	flags.StringVar(&f.tunnelType, "tunnel-type", "ipip", "ipip, gue or gre")
	numberFlag(flags, &f.tunnelPort, "tunnel-port", "", 0, 0, math.MaxUint16, "UDP port of gue")
	flags.StringVar(&f.tunnelChecksum, "tunnel-checksum", "nocsum", "nocsum, csum or remcsum")
	flags.StringVar(&f.name, "name", "", "name, for people")
	flags.StringVar(&f.comment, "comment", "", "comment, for people")
}

// change writes the flags that were given into d. A destination that no longer is a
// tunnel loses its tunnel options.
func (f *destinationFlags) change(cmd *cobra.Command, d *ipvs.Destination) error {
	given := cmd.Flags().Changed
	if given("forward") {
		if err := d.Forward.UnmarshalText([]byte(f.forward)); err != nil {
			return usagef("--forward: %w", err)
		}
		if d.Forward != ipvs.Tunnel {
			d.Tunnel = ipvs.TunnelOptions{}
		}
	}
	if given("tunnel-type") {
		if err := d.Tunnel.Type.UnmarshalText([]byte(f.tunnelType)); err != nil {
			return usagef("--tunnel-type: %w", err)
		}
	}
	if given("tunnel-checksum") {
		if err := d.Tunnel.Checksum.UnmarshalText([]byte(f.tunnelChecksum)); err != nil {
			return usagef("--tunnel-checksum: %w", err)
		}
	}
	if given("tunnel-port") {
		d.Tunnel.Port = f.tunnelPort
	}
	if given("weight") {
		d.Weight = f.weight
	}
	if given("upper") {
		d.Upper = f.upper
	}
	if given("lower") {
		d.Lower = f.lower
	}
	return changeTexts(cmd, f.name, f.comment, &d.Name, &d.Comment)
}

// changeTexts writes --name and --comment, where they were given.
func changeTexts(cmd *cobra.Command, name, comment string, toName, toComment *string) error {
	for _, t := range []struct {
		flag, text string
		limit      int
		to         *string
	}{{"name", name, ipvs.MaxName, toName}, {"comment", comment, ipvs.MaxComment, toComment}} {
		if !cmd.Flags().Changed(t.flag) {
			continue
		}
		if err := ipvs.CheckText(t.text, t.limit); err != nil {
			return usagef("--%s %w", t.flag, err)
		}
		*t.to = t.text
	}
	return nil
}
