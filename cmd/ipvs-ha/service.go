package main

import (
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func serviceCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Add, change or delete one virtual service",
		Args:  cobra.NoArgs,
		RunE:  group,
	}
	add := serviceVerb(o, "add", "Add a virtual service", func(s *ipvs.Service) ipvs.Change {
		return ipvs.Change{Op: ipvs.AddService, Key: s.Key, Service: s}
	})
	add.Example = `  ipvs-ha service add tcp://10.9.0.100:80 --scheduler wrr
  ipvs-ha service add udp://[2001:db8::100]:53 --flags one-packet
  ipvs-ha service add fwmark://7 --persistence-timeout 5m`
	set := serviceVerb(o, "set", "Change a virtual service; what is not named stays", nil)
	del := &cobra.Command{
		Use:   "delete SERVICE",
		Short: "Delete a virtual service and its destinations",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := parseService(args[0])
			if err != nil {
				return err
			}
			return o.write(cmd, api.Write{Changes: []ipvs.Change{{Op: ipvs.DeleteService, Key: key}}})
		},
	}
	cmd.AddCommand(add, set, del)
	writeFlags(cmd, o)
	return cmd
}

func parseService(arg string) (ipvs.ServiceKey, error) {
	key, err := ipvs.ParseServiceKey(arg)
	if err != nil {
		return key, &usageError{err}
	}
	if err := key.Validate(); err != nil {
		return key, usagef("service %q: %w", arg, err)
	}
	return key, nil
}

// serviceVerb makes "service add" and, without a fresh change, "service set".
func serviceVerb(o *options, verb, short string, fresh func(*ipvs.Service) ipvs.Change) *cobra.Command {
	var f serviceFlags
	cmd := &cobra.Command{
		Use:   verb + " SERVICE",
		Short: short,
		Long:  short + ".\n\nSERVICE is tcp://ADDRESS:PORT, udp://, sctp:// ([IPv6]:PORT too), fwmark://MARK or fwmark6://MARK.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := parseService(args[0])
			if err != nil {
				return err
			}
			if fresh != nil {
				s := ipvs.Service{Key: key, Scheduler: ipvs.DefaultScheduler}
				if err := f.change(cmd, &s); err != nil {
					return err
				}
				return o.write(cmd, api.Write{Changes: []ipvs.Change{fresh(&s)}})
			}
			return o.edit(cmd, key, func(s ipvs.Service) (ipvs.Change, error) {
				s.Destinations = nil
				err := f.change(cmd, &s)
				return ipvs.Change{Op: ipvs.SetService, Key: key, Service: &s}, err
			})
		},
	}
	f.add(cmd)
	return cmd
}

// serviceFlags are the settings of a virtual service as flags.
type serviceFlags struct {
	scheduler, timeout, netmask, engine, name, comment string
	prefix                                             uint8
	vip                                                bool
	flags                                              []string
}

func (f *serviceFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.scheduler, "scheduler", "s", ipvs.DefaultScheduler, "scheduler")
	flags.StringVar(&f.timeout, "persistence-timeout", "", "persistence: a client stays with its destination this long, like 5m; 0 turns it off")
	flags.StringVar(&f.netmask, "netmask", "", "persistence: IPv4 clients of one network count as one, like 255.255.255.0; empty turns it off")
	numberFlag(flags, &f.prefix, "prefix", "", 0, 0, 128, "persistence: the same for IPv6, like 64; 0 turns it off")
	flags.StringVar(&f.engine, "engine", "", "persistence engine: sip")
	flags.StringSliceVar(&f.flags, "flags", nil, "one-packet, sh-fallback, sh-port, mh-fallback, mh-port, flag-1, flag-2, flag-3")
	flags.BoolVar(&f.vip, "vip", true, "the address is a virtual address when the table's vips are auto")
	flags.StringVar(&f.name, "name", "", "name, for people")
	flags.StringVar(&f.comment, "comment", "", "comment, for people")
}

// change writes the flags that were given into s.
func (f *serviceFlags) change(cmd *cobra.Command, s *ipvs.Service) error {
	given := cmd.Flags().Changed
	if given("scheduler") {
		if err := ipvs.CheckScheduler(f.scheduler); err != nil {
			return usagef("--scheduler: %w", err)
		}
		s.Scheduler = f.scheduler
	}
	if err := changeTexts(cmd, f.name, f.comment, &s.Name, &s.Comment); err != nil {
		return err
	}
	if given("vip") {
		s.NoVIP = ipvs.Negated(!f.vip)
	}
	if given("engine") {
		if f.engine != "" && f.engine != "sip" {
			return usagef("--engine %q: want sip, or nothing to turn it off", f.engine)
		}
		s.Persistence.Engine = f.engine
	}
	if given("prefix") {
		s.Persistence.Prefix = f.prefix
	}
	if given("netmask") {
		s.Persistence.Netmask = netip.Addr{}
		if f.netmask != "" {
			mask, err := netip.ParseAddr(f.netmask)
			if err != nil {
				return usagef("--netmask %q: want a mask like 255.255.255.0", f.netmask)
			}
			if err := ipvs.CheckNetmask(mask); err != nil {
				return usagef("--netmask: %w", err)
			}
			s.Persistence.Netmask = mask
		}
	}
	if given("persistence-timeout") {
		timeout, err := ipvs.ParseSeconds(f.timeout)
		if err != nil {
			return usagef("--persistence-timeout: %w", err)
		}
		if timeout > ipvs.MaxTimeout {
			return usagef("--persistence-timeout: %s is longer than the limit of %s", f.timeout, ipvs.MaxTimeout)
		}
		s.Persistence.Timeout = timeout
		if timeout == 0 {
			s.Persistence = ipvs.Persistence{}
		}
	}
	if given("flags") {
		s.Flags = 0
		for _, name := range f.flags {
			flag, err := ipvs.ParseFlag(name)
			if err != nil {
				return usagef("--flags: %w", err)
			}
			s.Flags |= flag
		}
	}
	return nil
}
