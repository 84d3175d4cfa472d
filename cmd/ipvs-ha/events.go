package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ipvs-ha/ipvs-ha/api"
)

// eventTime is RFC 3339 with milliseconds.
const eventTime = "2006-01-02T15:04:05.000Z07:00"

func eventsCommand(o *options) *cobra.Command {
	var format string
	var query api.EventQuery
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened: role changes with their causes and steps",
		Long: `Show what happened on the nodes, oldest first: changes of role with what caused
them and how long each step took, a fence or an address that somebody removed, another
host that claims a virtual address. The times are those of each node's own clock.

A node remembers its newest events until its agent ends; all are in its log too.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return usagef("-o %q: want table or json", format)
			}
			return o.act(cmd, func(ctx context.Context, client *api.Client) error {
				events, err := client.Events(ctx, query)
				if err != nil {
					return err
				}
				if format == "json" {
					return printJSON(cmd.OutOrStdout(), events)
				}
				return printEvents(cmd.OutOrStdout(), cmd.ErrOrStderr(), events)
			})
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	cmd.Flags().StringVar(&query.Node, "node", "", "of this node only (default all that can be reached)")
	numberFlag(cmd.Flags(), &query.Limit, "limit", "", api.DefaultEvents, 1, api.MaxEvents, "the newest so many")
	return cmd
}

func printEvents(out, errOut io.Writer, events api.Events) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TIME\tNODE\tEVENT\tCAUSE")
	for _, e := range events.Events {
		cause := e.Cause
		if e.Term != 0 {
			cause = fmt.Sprintf("term %d; %s", e.Term, cause)
		}
		if steps := e.StepsText(); steps != "" {
			cause += fmt.Sprintf("; %s (total %d ms)", steps, e.TotalMS)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Time.Format(eventTime), e.Node, e.Kind, cause)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range events.Silent {
		fmt.Fprintf(errOut, "events of %s are missing: %s\n", n.Node, n.Reason)
	}
	return nil
}
