// Command bench measures what sluice costs, beside nginx, HAProxy and the smallest proxy that
// fasthttp makes, all over loopback in one run. docs/performance.md tells how to read it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// settings are what the command line says.
type settings struct {
	sluice   string        // the binary
	rounds   int           // of each scenario
	duration time.Duration // of each subject's turn in a round
	only     string        // a part of the names of the scenarios to run
	subjects string        // comma-separated, in the order of their turns
	out      string        // a folder for the report; empty for none
	smoke    bool
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) > 0 && args[0] == "floor" {
		return floor(ctx, args[1:])
	}
	var s settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&s.sluice, "sluice", "./sluice", "the binary to measure")
	flags.IntVar(&s.rounds, "rounds", 5, "rounds of each scenario; the subjects take turns in each")
	flags.DurationVar(&s.duration, "duration", 2*time.Second, "how long a turn lasts")
	flags.StringVar(&s.only, "only", "", "run only the scenarios whose names contain this")
	flags.StringVar(&s.subjects, "subjects", "direct,sluice,nginx,floor,haproxy", "who is measured, in the order of their turns")
	flags.StringVar(&s.out, "out", "", "write the report and its charts into this folder")
	flags.BoolVar(&s.smoke, "smoke", false, "a short turn of everything, to see that all of it runs and every answer is right")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("takes no arguments, but got %q", flags.Arg(0))
	}
	if s.smoke {
		s.rounds, s.duration = 1, 300*time.Millisecond
	}
	path, err := filepath.Abs(s.sluice)
	if err != nil {
		return err
	}
	s.sluice = path

	up, err := serveUpstream()
	if err != nil {
		return err
	}
	defer up.close()
	var report report
	for _, sc := range scenarios {
		if !strings.Contains(sc.name, s.only) {
			continue
		}
		result, err := measure(ctx, &s, &sc, up, stdout)
		if err != nil {
			return fmt.Errorf("%s: %w", sc.name, err)
		}
		report.results = append(report.results, result)
	}
	if s.out == "" || s.smoke {
		return nil
	}
	report.describe(&s)
	return report.write(s.out)
}
