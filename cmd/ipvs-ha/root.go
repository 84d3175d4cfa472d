package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/cluster"
)

// The exit statuses that scripts may rely on.
const (
	exitOK      = 0
	exitFailed  = 1 // refused or failed
	exitUsage   = 2
	exitUnknown = 3 // the outcome is unknown
	exitPending = 4 // committed, but not yet in every kernel, or a drained director is still active
	exitRemoved = 5 // of the agent: the node was removed from its cluster, or is a copy of another
	exitDisk    = 6 // of the agent: the disk of its data directory stalls or fails
	exitChanges = 7 // of plan: there is something to do
)

const defaultAPI = "unix:///run/ipvs-ha/api.sock"

// run carries out one command line and returns the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	var pending *pendingError
	var stillActive *stillActiveError
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errChanges):
		return exitChanges
	case errors.As(err, &pending), errors.As(err, &stillActive):
		fmt.Fprint(errOut, err.Error())
		return exitPending
	}
	fmt.Fprintln(errOut, "ipvs-ha: "+message(err))
	switch {
	case errors.As(err, &usage):
		fmt.Fprintln(errOut, "try: ipvs-ha help, or the command with --help")
		return exitUsage
	case api.KindOf(err) == api.Unknown:
		return exitUnknown
	case errors.Is(err, cluster.ErrRemoved), errors.Is(err, cluster.ErrCopied):
		return exitRemoved
	case errors.Is(err, cluster.ErrDiskStalled):
		return exitDisk
	}
	return exitFailed
}

// message is err in words, with one line for each broken rule.
func message(err error) string {
	var p *api.Problem
	if !errors.As(err, &p) {
		return err.Error()
	}
	switch p.Kind {
	case api.Unknown:
		return "outcome unknown: " + p.Detail + "\nthe change may be committed, now or later; look with: ipvs-ha get"
	case api.NoLeader:
		return "no leader: " + p.Detail + "\nsee who is up with: ipvs-ha status"
	case api.Internal, api.Timeout:
		return strings.ReplaceAll(string(p.Kind), "-", " ") + ": " + p.Detail
	}
	return p.Detail
}

// usageError is a wrong command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// options are the flags that client commands share.
type options struct {
	api     string
	timeout time.Duration
	wait    string
}

func newRoot() *cobra.Command {
	o := options{timeout: api.DefaultTimeout}
	root := &cobra.Command{
		Use:           "ipvs-ha",
		Short:         "Highly available IPVS load balancers: one table, every kernel",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       versionText(),
		Args:          cobra.NoArgs,
		RunE:          group,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(agentCommand(), recoverCommand(), releaseCommand(), versionCommand(), manCommand(root))
	for _, c := range []*cobra.Command{
		applyCommand(&o), planCommand(&o), getCommand(&o), serviceCommand(&o), destinationCommand(&o),
		statusCommand(&o), eventsCommand(&o), membersCommand(&o), transferCommand(&o), reconcileCommand(&o),
		drainCommand(&o), undrainCommand(&o), preferCommand(&o),
	} {
		c.PersistentFlags().StringVar(&o.api, "api", "", "address of the agent, else IPVS_HA_API, else "+defaultAPI)
		c.PersistentFlags().Var((*patience)(&o.timeout), "timeout", "how long to wait for an answer")
		root.AddCommand(c)
	}
	checkArguments(root)
	return root
}

// checkArguments makes every complaint about arguments a usage error.
func checkArguments(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usagef("%s%w%s", words(cmd), err, suggestion(cmd, args))
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		checkArguments(sub)
	}
}

// suggestion names the subcommands that args may have been meant as.
func suggestion(cmd *cobra.Command, args []string) string {
	if len(args) == 0 {
		return ""
	}
	cmd.SuggestionsMinimumDistance = 2 // letters that may differ
	if names := cmd.SuggestionsFor(args[0]); len(names) > 0 {
		return "; did you mean " + strings.Join(names, " or ") + "?"
	}
	return ""
}

// group is what a command does that only has subcommands.
func group(cmd *cobra.Command, _ []string) error {
	return usagef("%sa subcommand is missing", words(cmd))
}

// words are the subcommands that lead to cmd, to begin a message with.
func words(cmd *cobra.Command) string {
	_, path, sub := strings.Cut(cmd.CommandPath(), " ")
	if !sub {
		return ""
	}
	return path + ": "
}

// client returns the client and a context that ends with the time asked for.
func (o *options) client(cmd *cobra.Command) (*api.Client, context.Context, context.CancelFunc, error) {
	o.api = cmp.Or(o.api, os.Getenv("IPVS_HA_API"), defaultAPI)
	if !strings.HasPrefix(o.api, "unix:///") {
		return nil, nil, nil, usagef("--api %q: want unix:///PATH", o.api)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	return api.NewClient(o.api), ctx, cancel, nil
}

// act runs do with a client.
func (o *options) act(cmd *cobra.Command, do func(context.Context, *api.Client) error) error {
	client, ctx, cancel, err := o.client(cmd)
	if err != nil {
		return err
	}
	defer cancel()
	return do(ctx, client)
}
