// Command sluice is a gateway for LLM APIs. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"sluice/cli"
	"sluice/config"
	"sluice/mock"
)

const usage = `usage:
  sluice [-config FILE]            serve
  sluice check [-config FILE]      say what is wrong with a configuration
  sluice keys create|list|show|update|rotate|revoke|export|import …
                                   gateway keys of a running sluice (-h tells more)
  sluice status [-json]            how a running sluice is
  sluice version                   what this program is
  sluice mock [-listen ADDR] …     serve a provider with OpenAI's and Anthropic's APIs, for trying things out (-h tells more)
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	signals := make(chan os.Signal, 1)
	if command, _ := commandOf(os.Args[1:]); command == "" {
		signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2) // before the configuration is read for the first time
		// A reader of stderr that goes away must not end the gateway: the write fails, and that is all.
		// Caught rather than ignored, since an ignored signal stays ignored in the programs that it starts.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	}
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr, signals, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// commandOf splits args into the command, "" for serving, and what follows it.
func commandOf(args []string) (command string, rest []string) {
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		return args[0], args[1:]
	}
	return "", args
}

// run is the program. ready, if not nil, is told the addresses it listens on.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, signals <-chan os.Signal, ready func(data, admin net.Addr)) error {
	command, args := commandOf(args)
	switch command {
	case "keys":
		return cli.Keys(ctx, args, os.Getenv, stdout)
	case "status":
		return cli.Status(ctx, args, os.Getenv, stdout)
	case "version":
		_, err := fmt.Fprintln(stdout, version())
		return err
	case "mock":
		return mock.Main(ctx, args, stderr)
	}
	flags := flag.NewFlagSet("sluice", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the error is printed once, by main
	path := flags.String("config", "config.yaml", "configuration file")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stderr, usage)
		return nil
	case err != nil:
		return fmt.Errorf("%w\n%s", err, usage)
	}
	if (command != "" && command != "check") || flags.NArg() > 0 {
		return fmt.Errorf("sluice does not know %q\n%s", append([]string{command}, flags.Args()...), usage)
	}
	cfg, digest, err := config.Load(ctx, *path)
	if err != nil {
		return err
	}
	if command == "check" {
		for _, warning := range cfg.Warnings() {
			fmt.Fprintln(stderr, "warning: "+warning)
		}
		fmt.Fprintln(stderr, *path+": ok")
		return nil
	}
	return serve(ctx, *path, cfg, digest, stderr, signals, ready)
}

// boundMemory has the garbage collector run more often rather than let the process grow past 90% of what its
// cgroup, or else the machine, gives it, which it returns; 0 if that is not known. GOMEMLIMIT in the
// environment goes before.
func boundMemory(log *slog.Logger) int64 {
	available := memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)
	_, _ = memlimit.Set(memlimit.WithProvider(available), memlimit.WithLogger(log)) // an error is logged there
	bytes, err := available()
	if err != nil {
		return 0
	}
	return int64(min(bytes, 1<<50))
}
