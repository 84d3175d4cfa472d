package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/fsm"
)

// stillActiveError is a drain that is committed, of a director that nobody relieves.
type stillActiveError struct{ node, reason string }

func (e *stillActiveError) Error() string {
	return fmt.Sprintf("ipvs-ha: %s is drained, but serves on until another director is fitter:\n  %s\n", e.node, strings.ReplaceAll(e.reason, "\n", "\n  "))
}

func drainCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "drain NODE",
		Short: "Have another director be the active one, as long as there is one",
		Long: `Have another director be the active one, as long as there is one that is fit, and
wait until that is so. It stays so until undrain, also when NODE is started anew. With
exit status 4 NODE is drained, but still active: no other director can take over.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.drain(cmd, args[0], true) },
	}
}

func undrainCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "undrain NODE",
		Short: "Let a drained director be the active one again; it does not become it by that",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return o.drain(cmd, args[0], false) },
	}
}

func (o *options) drain(cmd *cobra.Command, node string, drained bool) error {
	return o.act(cmd, func(ctx context.Context, client *api.Client) error {
		configured, err := client.Configure(ctx, node, api.MemberSettings{Drained: &drained, By: caller()})
		if err == nil && configured.StillActive != "" {
			return &stillActiveError{node, configured.StillActive}
		}
		return err
	})
}

func preferCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prefer NODE 0-100",
		Short: "Say which of the directors that are equally fit succeeds the active one",
		Long: `Say which of the directors that are equally fit succeeds the active one when it is
lost: the one with the highest number. It is 50 where nothing was said. It moves
nothing by itself.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := parseNumber(args[1], 0, fsm.MaxPreference)
			if err != nil {
				return usagef("prefer: %q: %w", args[1], err)
			}
			preference := int(n)
			return o.act(cmd, func(ctx context.Context, client *api.Client) error {
				_, err := client.Configure(ctx, args[0], api.MemberSettings{Preference: &preference, By: caller()})
				return err
			})
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) {
			if text := unknown.GetSpecifiedShortnames(); text != "" && strings.Trim(text, "0123456789") == "" { // -1 is no flag
				_, err := parseNumber("-"+text, 0, fsm.MaxPreference)
				return usagef("prefer: \"-%s\": %w", text, err)
			}
		}
		return flagError(cmd, err)
	})
	return cmd
}
