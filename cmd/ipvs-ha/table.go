package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipvs-ha/ipvs-ha/api"
	"github.com/ipvs-ha/ipvs-ha/configs"
	"github.com/ipvs-ha/ipvs-ha/ipvs"
	"github.com/ipvs-ha/ipvs-ha/ipvsadm"
)

// largeTimeout is how long apply waits for each started MiB of a table file beyond the
// first, when it is not told.
const largeTimeout = 5 * time.Second

func applyCommand(o *options) *cobra.Command {
	var file string
	var revision uint64
	cmd := &cobra.Command{
		Use:   "apply -f FILE|-",
		Short: "Replace the whole table, all or nothing",
		Long: `Replace the whole table, all or nothing. A large table takes longer to reach
every kernel, so --timeout is 5 s longer for each MiB of the file unless it is given.`,
		Example: `  ipvs-ha apply -f table.yaml
  ipvs-ha get | sed s/wlc/mh/ | ipvs-ha apply -f -
  ipvs-ha apply -f table.yaml --if-revision 12`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := o.readTable(cmd, file)
			if err != nil {
				return err
			}
			w := api.Write{Replace: &doc}
			if cmd.Flags().Changed("if-revision") {
				w.IfRevision = &revision
			}
			return o.write(cmd, w)
		},
	}
	fileFlag(cmd, &file)
	numberFlag(cmd.Flags(), &revision, "if-revision", "", 0, 0, math.MaxUint64, "refuse when the table is not at this revision")
	writeFlags(cmd, o)
	return cmd
}

// fileFlag adds the flag -f to a command that has no other arguments.
func fileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "file", "f", "", "table file, YAML or JSON; - is standard input")
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("want -f %s", args[0])
		}
		return nil
	}
}

// readTable reads the file of -f. A large one has more time, unless --timeout says how
// much.
func (o *options) readTable(cmd *cobra.Command, file string) (ipvs.Document, error) {
	if file == "" {
		return ipvs.Document{}, usagef("%s: -f FILE is missing", cmd.Name())
	}
	data, name, err := readFile(cmd, file)
	if err != nil {
		return ipvs.Document{}, err
	}
	if !cmd.Flags().Changed("timeout") {
		o.timeout += time.Duration(len(data)>>20) * largeTimeout
	}
	return configs.ParseTable(data, name)
}

func readFile(cmd *cobra.Command, file string) (data []byte, name string, err error) {
	in, name := cmd.InOrStdin(), "standard input"
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, "", err
		}
		defer f.Close()
		in, name = f, file
	}
	data, err = io.ReadAll(io.LimitReader(in, ipvs.MaxDocument+1))
	if err == nil && len(data) > ipvs.MaxDocument {
		err = fmt.Errorf("larger than the limit of %d MiB", ipvs.MaxDocument>>20)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", name, err)
	}
	return data, name, nil
}

func getCommand(o *options) *cobra.Command {
	var format string
	var stale bool
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Print the table",
		Long: `Print the table. By default the answer holds every change that was committed
before the question, whichever node is asked. With --stale the asked node answers
from what it knows, without a leader too, and says on standard error how old that is.

-o ipvsadm prints lines that ipvsadm -R reads: those of ipvsadm -Sn, and the thresholds
-x and -y too. Names, comments, timeouts, sync and vips have no form in them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch format {
			case "yaml", "json", "ipvsadm":
			default:
				return usagef("-o %q: want yaml, json or ipvsadm", format)
			}
			return o.act(cmd, func(ctx context.Context, client *api.Client) error {
				view, err := client.Table(ctx, stale)
				if err != nil {
					return err
				}
				if stale {
					fmt.Fprintln(cmd.ErrOrStderr(), staleness(view))
				}
				if format == "ipvsadm" {
					return ipvsadm.Write(cmd.OutOrStdout(), view.Table)
				}
				text, err := configs.FormatTable(view.Table.Document(), format)
				if err != nil {
					return err
				}
				if format == "yaml" {
					fmt.Fprintf(cmd.OutOrStdout(), "# revision %d\n", view.Revision)
				}
				_, err = cmd.OutOrStdout().Write(text)
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "yaml", "yaml, json or ipvsadm (lines that ipvsadm -R reads)")
	cmd.Flags().BoolVar(&stale, "stale", false, "answer from what this node knows")
	return cmd
}

// staleness says how old a stale view may be.
func staleness(view api.TableView) string {
	if view.Age < 0 {
		return fmt.Sprintf("%s at revision %d; it has not heard a leader since it started", view.Node, view.Revision)
	}
	return fmt.Sprintf("%s at revision %d; it heard a leader %s ago", view.Node, view.Revision, view.Age.Round(time.Millisecond))
}
