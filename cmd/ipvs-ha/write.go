package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// pendingError is a write that is committed but not yet in every kernel.
type pendingError struct{ result api.WriteResult }

func (e *pendingError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "ipvs-ha: revision %d is committed, but not yet in every kernel:\n", e.result.Revision)
	for _, p := range e.result.Pending {
		fmt.Fprintf(&b, "  %s: %s\n", p.Node, strings.ReplaceAll(p.Reason, "\n", "\n    "))
	}
	return b.String()
}

// writeFlags adds the flags of commands that change the table.
func writeFlags(cmd *cobra.Command, o *options) {
	cmd.PersistentFlags().StringVar(&o.wait, "wait", string(api.WaitAll), "kernels to wait for: all (every reachable director's), leader or none")
}

// write commits w and tells its revision.
func (o *options) write(cmd *cobra.Command, w api.Write) error {
	return o.act(cmd, func(ctx context.Context, client *api.Client) error {
		return o.writeWith(ctx, cmd, client, w)
	})
}

func (o *options) writeWith(ctx context.Context, cmd *cobra.Command, client *api.Client, w api.Write) error {
	w.Wait = api.Wait(o.wait)
	switch w.Wait {
	case api.WaitAll, api.WaitLeader, api.WaitNone:
	default:
		return usagef("--wait %q: want all, leader or none", o.wait)
	}
	w.By = caller()
	result, err := client.Write(ctx, w)
	if err != nil {
		return err
	}
	if len(result.Skipped) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "ipvs-ha: not waited for, since they cannot be reached: %s\n", strings.Join(result.Skipped, ", "))
	}
	if len(result.Pending) > 0 {
		return &pendingError{result}
	}
	fmt.Fprintf(cmd.OutOrStdout(), "revision %d\n", result.Revision)
	return nil
}

// caller names who asked, for people.
func caller() string {
	if sudo := os.Getenv("SUDO_USER"); sudo != "" {
		return sudo
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// editTries is how often an edit is made again when others change the table
// meanwhile.
const editTries = 5

// edit reads a service, has change make the edit, and writes it on condition that the
// table is still the same.
func (o *options) edit(cmd *cobra.Command, key ipvs.ServiceKey, change func(ipvs.Service) (ipvs.Change, error)) error {
	return o.act(cmd, func(ctx context.Context, client *api.Client) error {
		for try := 1; ; try++ {
			service, revision, err := client.Service(ctx, key)
			if err != nil {
				return err
			}
			c, err := change(service)
			if err != nil {
				return err
			}
			err = o.writeWith(ctx, cmd, client, api.Write{IfRevision: &revision, Changes: []ipvs.Change{c}})
			if api.KindOf(err) != api.Conflict || try == editTries {
				return err
			}
		}
	})
}
