package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

func statusCommand(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of every node",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return usagef("-o %q: want table or json", format)
			}
			return o.act(cmd, func(ctx context.Context, client *api.Client) error {
				status, err := client.Status(ctx)
				if err != nil {
					return err
				}
				if format == "json" {
					return printJSON(cmd.OutOrStdout(), status)
				}
				return printStatus(cmd.OutOrStdout(), status)
			})
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	return cmd
}

func printStatus(out io.Writer, s api.Status) error {
	leader := s.Leader
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(out, "cluster %s, leader %s, revision %d\n\n", s.Cluster, leader, s.Revision)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tROLE\tSTATE\tELIGIBLE\tRAFT\tVOTER\tREVISION\tSYNC DAEMONS\tVIPS\tFOREIGN\tREPAIRED")
	for _, n := range s.Nodes {
		var daemons []string
		for _, d := range n.SyncDaemons {
			daemons = append(daemons, fmt.Sprintf("%s on %s id %d", d.State, d.Interface, d.SyncID))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%d\t%d\n", n.Name, n.Role, n.State, eligible(n), orDash(n.Raft), yesNo(n.Voter),
			n.AppliedRevision, orDash(strings.Join(daemons, ", ")), vips(n), n.Foreign, n.DriftRepaired)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if len(n.Obstacles) > 0 && n.State != api.StateUnreachable {
			fmt.Fprintf(out, "\n%s: not eligible: %s", n.Name, strings.Join(n.Obstacles, "; "))
		}
	}
	for _, n := range s.Nodes {
		for _, e := range n.Errors {
			fmt.Fprintf(out, "\n%s: %s", n.Name, strings.TrimPrefix(e.Object+": "+e.Message, ": "))
		}
	}
	for _, n := range s.Nodes {
		if len(n.ForeignServices) > 0 {
			fmt.Fprintf(out, "\n%s: not in the table: %s", n.Name, listed(n.ForeignServices, n.Foreign))
		}
	}
	for _, warning := range s.Warnings {
		fmt.Fprintf(out, "\nwarning: %s", warning)
	}
	_, err := fmt.Fprintln(out)
	return err
}

// eligible says whether a node may become the active director, and how much it is
// preferred when that was set.
func eligible(n api.NodeStatus) string {
	if n.Role == api.RoleWitness {
		return "-"
	}
	if n.Preference != 50 {
		return fmt.Sprintf("%s, preference %d", yesNo(n.Eligible), n.Preference)
	}
	return yesNo(n.Eligible)
}

// vips says how many virtual addresses a node has, and whether its fence lets packets
// to them pass.
func vips(n api.NodeStatus) string {
	if n.Fence == "" {
		return "-"
	}
	return fmt.Sprintf("%d, fence %s", n.VIPCount, n.Fence)
}

// listed names the first of total services.
func listed(services []ipvs.ServiceKey, total int) string {
	const most = 8
	var names []string
	for _, k := range services[:min(len(services), most)] {
		names = append(names, k.String())
	}
	if more := total - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

func printJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
