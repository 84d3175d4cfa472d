package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipvs-ha/ipvs-ha/agent"
	"github.com/ipvs-ha/ipvs-ha/cluster"
	"github.com/ipvs-ha/ipvs-ha/configs"
)

func recoverCommand() *cobra.Command {
	var file string
	var dead []string
	var yes bool
	cmd := &cobra.Command{
		Use:   "recover --config FILE --dead NODE[,NODE...] [--yes]",
		Short: "Make this stopped node a cluster of its own, after a majority was lost for good",
		Long: `Make this stopped node the only member of a new cluster that has its table, after a
majority of the old one was lost for good. While the lost nodes can be started, start
them instead.

--dead names all members that are lost, by name or id. It is your word that they do
not run and never will again with their data directories: while they run they serve
the VIPs, and this node will too. Members that are neither dead nor this node can only
join the new cluster, with an emptied data directory.

Run it on one survivor, the one whose log is the longest: the highest term, and then
the highest index. Each node on which you run it becomes a cluster of its own, and
each takes the VIPs. Without --yes it only tells what it would do.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if file == "" || len(dead) == 0 {
				return usagef("recover: want --config FILE and --dead NODE[,NODE...]")
			}
			cfg, err := configs.Load(file)
			if err != nil {
				return err
			}
			log, err := newLogger(cmd.ErrOrStderr(), "error", "text")
			if err != nil {
				return err
			}
			r, err := agent.OpenRecovery(cfg, dead, log)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.Close()) }()
			out := cmd.OutOrStdout()
			tellRecovery(out, cfg.Cluster.Name, r)
			if !yes {
				fmt.Fprintln(out, "\nNothing was changed. To do it, run this again with --yes.")
				return nil
			}
			id, err := r.Run()
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "\nDone: cluster %s has id %s. Start this node's agent.\n", cfg.Cluster.Name, id)
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file of the agent")
	cmd.Flags().StringSliceVar(&dead, "dead", nil, "all members that are lost for good, by name or id")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

// tellRecovery says what r will do.
func tellRecovery(w io.Writer, name string, r *cluster.Recovery) {
	fmt.Fprintf(w, "Cluster %s (id %s), from %s's copy: its log ends at index %d of term %d.\n\n", name, r.ClusterID, r.Node.Name, r.LastIndex, r.LastTerm)
	fmt.Fprintf(w, "members before  %s\n", listMembers(r.Members))
	fmt.Fprintf(w, "dead            %s\n", listMembers(r.Dead))
	fmt.Fprintf(w, "members after   %s, with a new cluster id\n", r.Node.Name)
	fmt.Fprint(w, "\nWrites that only the dead had are lost, acknowledged ones too. ")
	fmt.Fprintf(w, "If one of the dead still runs, or is started with its old data directory\nbeside others of them, two clusters serve the VIPs.\n")
	if len(r.Others) > 0 {
		fmt.Fprintf(w, "Not of the new cluster, and to be emptied before they join it: %s. Do not run recover on them.\n", listMembers(r.Others))
	}
}

func listMembers(list []cluster.Member) string {
	names := make([]string, 0, len(list))
	for _, m := range list {
		name := m.Name
		if m.Name != m.ID {
			name += " (" + m.ID + ")"
		}
		switch {
		case !m.Voter:
			name += ", no vote"
		case m.Witness:
			name += ", witness"
		}
		names = append(names, name)
	}
	return strings.Join(names, "; ")
}
