// Command sluice is a gateway for LLM APIs. See README.md.
package main

import (
	"context"
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
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr, serverSignals, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(cli.ExitCode(err))
	}
}

// serverSignals are those that a process which serves takes for something else than its end.
func serverSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2)
	surviveStderr()
	return signals
}

// surviveStderr lets a reader of stderr go away without ending the gateway: the write fails, and that is
// all. SIGPIPE is caught rather than ignored, since an ignored signal stays ignored in the programs that
// this one starts.
func surviveStderr() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// run is the program. signals subscribes to the signals of a process that serves; nil for none. ready,
// if not nil, is told the addresses it listens on.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, signals func() <-chan os.Signal, ready func(data, admin net.Addr)) error {
	program := &cli.Program{Version: version(), Name: os.Args[0], Stdout: stdout, Stderr: stderr}
	program.Serve = func(ctx context.Context, file string) error {
		var subscribed <-chan os.Signal
		if signals != nil {
			subscribed = signals() // before the configuration is read for the first time
		}
		cfg, digest, err := config.Load(ctx, file)
		if err != nil {
			return err
		}
		return serve(ctx, service{path: file, cfg: cfg, digest: digest, stderr: stderr, signals: subscribed,
			fixed: replaceable(os.Getpid()), ready: ready})
	}
	program.Demo = func(ctx context.Context, flags cli.Demo) error { return runDemo(ctx, flags, stdout, stderr) }
	return program.Run(ctx, args)
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
