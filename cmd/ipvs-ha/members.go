package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ipvs-ha/ipvs-ha/api"
)

func membersCommand(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "members",
		Short: "List the members of the cluster, remove or replace one",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return usagef("-o %q: want table or json", format)
			}
			return o.act(cmd, func(ctx context.Context, client *api.Client) error {
				members, err := client.Members(ctx)
				if err != nil {
					return err
				}
				if format == "json" {
					return printJSON(cmd.OutOrStdout(), members)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "NODE\tID\tADDRESS\tROLE\tVOTER\tLEADER\tREACHABLE\tWAITS FOR")
				for _, m := range members {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.ID, m.Address, m.Role,
						yesNo(m.Voter), yesNo(m.Leader), yesNo(m.Reachable), orDash(m.Waiting))
				}
				return w.Flush()
			})
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	cmd.AddCommand(
		memberVerb(o, "remove", "Remove a node from the cluster for good", (*api.Client).RemoveMember),
		memberVerb(o, "replace", "Let the waiting node of that name take the place of the dead one", (*api.Client).ReplaceMember),
	)
	return cmd
}

func memberVerb(o *options, verb, short string, do func(*api.Client, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NODE",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.act(cmd, func(ctx context.Context, client *api.Client) error { return do(client, ctx, args[0]) })
		},
	}
}

func transferCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "transfer [NODE]",
		Short: "Make another director the leader",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to := ""
			if len(args) > 0 {
				to = args[0]
			}
			return o.act(cmd, func(ctx context.Context, client *api.Client) error { return client.Transfer(ctx, to) })
		},
	}
}

func reconcileCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "reconcile",
		Short: "Compare every director's kernel with the table now, and repair it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.act(cmd, func(ctx context.Context, client *api.Client) error { return client.Reconcile(ctx) })
		},
	}
}
