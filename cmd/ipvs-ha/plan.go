package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/configs"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
)

// errChanges is a plan with something to do. It has been printed.
var errChanges = errors.New("apply would change the table")

func planCommand(o *options) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "plan -f FILE|-",
		Short: "Show what apply would change, and change nothing",
		Long: `Show what apply would change, and change nothing. Lines with - leave the table, lines
with + come into it, below the service that they belong to. The exit status is 0 when
there is nothing to do and 7 when there is something.

The last line has the revision that the file was compared with; apply --if-revision
does what was shown, or nothing. Only the table is compared: what a kernel lacks of it,
status tells.`,
		Example: `  ipvs-ha plan -f table.yaml
  ipvs-ha get | sed s/wlc/mh/ | ipvs-ha plan -f -`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := o.readTable(cmd, file)
			if err != nil {
				return err
			}
			want, err := doc.Table()
			if err != nil {
				return err
			}
			return o.act(cmd, func(ctx context.Context, client *api.Client) error {
				view, err := client.Table(ctx, false)
				if err != nil {
					return err
				}
				out := bufio.NewWriter(cmd.OutOrStdout())
				summary := printPlan(out, view.Table, want)
				fmt.Fprintf(out, "# revision %d: %s\n", view.Revision, cmp.Or(summary, "nothing to do"))
				if err := out.Flush(); err != nil || summary == "" {
					return err
				}
				return errChanges
			})
		},
	}
	fileFlag(cmd, &file)
	return cmd
}

// printPlan prints the lines of the YAML form in which the tables differ, and returns a
// summary, which is empty when they do not.
func printPlan(out io.Writer, have, want ipvs.Table) (summary string) {
	settings := printDifference(out, lines(have.Settings()), lines(want.Settings()))
	var added, changed, deleted int
	for h, w := range ipvs.Unshared(have, want) {
		switch {
		case h == nil:
			added++
		case w == nil:
			deleted++
		case h.Equal(w):
			continue
		default:
			changed++
			fmt.Fprintf(out, "   - service: %s\n", w.Key)
		}
		printDifference(out, serviceLines(h), serviceLines(w))
	}
	if added+changed+deleted > 0 {
		summary = fmt.Sprintf("services: %d new, %d changed, %d deleted", added, changed, deleted)
	}
	if settings {
		summary = strings.TrimSuffix("settings changed; "+summary, "; ")
	}
	return summary
}

// printDifference prints the lines that only one of the two has, and reports whether
// there are any.
func printDifference(out io.Writer, have, want []string) (differ bool) {
	for _, side := range []struct {
		sign        string
		these, lack []string
	}{{"-", have, want}, {"+", want, have}} {
		others := map[string]bool{}
		for _, line := range side.lack {
			others[line] = true
		}
		for _, line := range side.these {
			if !others[line] {
				differ = true
				fmt.Fprintf(out, "%s%s\n", side.sign, line)
			}
		}
	}
	return differ
}

// serviceLines returns s, or nothing, as it is written in a table file.
func serviceLines(s *ipvs.Service) []string {
	if s == nil {
		return nil
	}
	return slices.Delete(lines(ipvs.Document{Services: []ipvs.Service{*s}}), 0, 1) // "services:"
}

func lines(doc ipvs.Document) []string {
	text, _ := configs.FormatTable(doc, "yaml") // fails for unknown formats only
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}
