// Package cli is sluice's command line: what its commands are called, what they take, and how they
// print. Commands about a running sluice are clients of its admin port.
package cli

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Exit codes of the program. docs/shell.md documents them.
const (
	exitFailed = 1 // the command could not do what it was asked to
	exitMisuse = 2 // the command line was wrong; nothing was done
)

// Program is what the commands need of the program that they belong to.
type Program struct {
	Version        string
	Name           string // that it was started by, for commands to paste; sluice if it is empty
	Stdout, Stderr io.Writer
	// Demo runs the gateway with a provider of its own until ctx ends.
	Demo func(ctx context.Context, d Demo) error
	// Serve runs the gateway on a configuration file until ctx ends.
	Serve func(ctx context.Context, file string) error
}

// Run executes the command that args name.
func (p *Program) Run(ctx context.Context, args []string) error {
	root := p.Root()
	root.SetArgs(doubleDashes(root, args))
	return root.ExecuteContext(ctx)
}

// ExitCode is the exit code of a program whose Run returned err.
func ExitCode(err error) int {
	var wrong *misuseError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrong):
		return exitMisuse
	}
	return exitFailed
}

// Root makes the tree of commands.
func (p *Program) Root() *cobra.Command {
	root := p.serve("sluice")
	root.Version = p.Version
	root.Long = "An LLM API gateway. Without a command it serves the configuration in a file, as\nsluice serve does."
	root.SilenceErrors, root.SilenceUsage = true, true // an error is one line, printed once, by main
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	root.SetHelpFunc(printHelp)
	root.SetHelpCommand(helpCommand())
	root.SetFlagErrorFunc(wrongFlag)
	root.CompletionOptions.DisableDefaultCmd = true
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.AddCommand(p.serve("serve"), p.demo(), p.init(), p.check(), p.keys(), p.models(), p.upstreams(), p.status(),
		p.tail(), p.top(),
		p.reload(), p.page(), mockCommand(), completion(), p.version())
	return root
}

// coloured reports whether w is a terminal whose user has nothing against colours (https://no-color.org).
func coloured(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

func isTerminal(of any) bool {
	file, ok := of.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
