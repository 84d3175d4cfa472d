package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ipvs-ha/ipvs-ha/agent"
	"github.com/ipvs-ha/ipvs-ha/configs"
)

func agentCommand() *cobra.Command {
	var file, level, format string
	var dev, check bool
	cmd := &cobra.Command{
		Use:   "agent --config FILE | --dev",
		Short: "Run this node",
		Long: `Run this node until SIGTERM or SIGINT. Table, connections and sync daemons then stay
in the kernel.

--dev runs one director alone, without any file; where there is no ip_vs, or no right
to use it, its kernel is one in memory, and it says so. Its table comes back with the
next --dev, until its directory under /tmp is removed.
The exit status is 5 for a node that was removed from its cluster, or whose data
directory is a copy of another's: it must not come back. It is 6 when the disk of the
data directory stalls or fails; started again, the agent waits until the disk works.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dev == (file != "") {
				return usagef("agent: want either --config FILE or --dev")
			}
			log, err := newLogger(cmd.ErrOrStderr(), level, format)
			if err != nil {
				return err
			}
			cfg, err := load(file, dev)
			if err != nil {
				return err
			}
			if check {
				return agent.Check(cfg)
			}
			if dev {
				fmt.Fprintf(cmd.OutOrStdout(), "export IPVS_HA_API=unix://%s\n", cfg.API.Socket)
			}
			err = agent.Run(cmd.Context(), cfg, agent.Options{Logger: log, Version: version, Dev: dev})
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file")
	cmd.Flags().BoolVar(&dev, "dev", false, "one director, no files needed")
	cmd.Flags().BoolVar(&check, "check", false, "only check the configuration")
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().StringVar(&format, "log-format", "text", "text or json")
	return cmd
}

func load(file string, dev bool) (configs.Config, error) {
	if dev {
		return devConfig()
	}
	return configs.Load(file)
}

// devConfig makes the configuration of --dev. Socket and data have a fixed place:
// the command line finds the one, and the next --dev by the other what this one has
// left in a real kernel.
func devConfig() (configs.Config, error) {
	name := "ipvs-ha-dev"
	if uid := os.Getuid(); uid != 0 {
		name += "-" + strconv.Itoa(uid)
	}
	dir := filepath.Join(os.TempDir(), name)
	if err := ownDirectory(dir); err != nil {
		return configs.Config{}, fmt.Errorf("directory of --dev: %w", err)
	}
	return configs.Dev(dir), nil
}

// ownDirectory makes dir. Where everybody may write, somebody else may have made it
// first.
func ownDirectory(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not a directory of yours alone; remove it", dir)
	}
	return nil
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level %q: want debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: l}
	if os.Getenv("JOURNAL_STREAM") != "" { // the journal has the time
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, usagef("--log-format %q: want text or json", format)
}
