package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"
)

// leastEvery is how often top may ask the gateway at most.
const leastEvery = 500 * time.Millisecond

type topFlags struct {
	every time.Duration
	by    string
	once  bool
}

func (p *Program) top() *cobra.Command {
	var r remote
	var f topFlags
	cmd := &cobra.Command{
		Use:   "top",
		Short: "show live what models, upstreams and keys of a running sluice do",
		Long: `Show live what the models, upstreams and keys of a running sluice have done in
the last minute, and how they are. Keys: tab, 1, 2 and 3 choose what is shown,
< and > the column to sort by, r turns the order, q ends it.`,
		Example: "  sluice top --by upstream\n  sluice top --once --json | jq .data",
		Args:    takes(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return r.top(cmd, f) },
	}
	r.bind(cmd)
	flags := cmd.Flags()
	flags.DurationVar(&f.every, "every", 2*time.Second, "`TIME` between looks")
	flags.StringVar(&f.by, "by", "model", "`KIND` to begin with: model, upstream or key")
	flags.BoolVar(&f.once, "once", false, "print one table and end; for other programs with --json")
	_ = cmd.RegisterFlagCompletionFunc("by",
		cobra.FixedCompletions([]string{"model", "upstream", "key"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (r *remote) top(cmd *cobra.Command, f topFlags) error {
	kind := slices.IndexFunc(topKinds[:], func(k topKind) bool { return k.by == f.by })
	switch {
	case kind < 0:
		return misuse(cmd, `cannot take %q for --by: must be model, upstream or key`, f.by)
	case f.every < leastEvery:
		return misuse(cmd, "needs --every of at least %s", leastEvery)
	case r.asJSON && !f.once:
		return misuse(cmd, "prints JSON with --once only")
	case !f.once && !hasScreen(cmd):
		return misuse(cmd, "needs a terminal; sluice top --once prints one table without")
	}
	admin, err := r.client(cmd.Context())
	if err != nil {
		return err
	}
	data, err := topKinds[kind].look(cmd.Context(), admin)
	switch {
	case err != nil:
		return err
	case f.once:
		return r.printTop(cmd, &topKinds[kind], data)
	}
	screen := newTopScreen(cmd.Context(), admin, f.every, coloured(cmd.OutOrStdout()))
	defer screen.end()
	screen.kind = kind
	screen.take(data)
	// main has the signals: they end the context.
	_, err = tea.NewProgram(screen, tea.WithContext(cmd.Context()), tea.WithOutput(cmd.OutOrStdout()),
		tea.WithoutSignalHandler()).Run()
	if cmd.Context().Err() != nil {
		return nil
	}
	return err
}

// hasScreen reports whether there is a terminal that can be drawn on, with a keyboard.
func hasScreen(cmd *cobra.Command) bool {
	return isTerminal(cmd.OutOrStdout()) && isTerminal(cmd.InOrStdin()) && os.Getenv("TERM") != "dumb"
}

// printTop prints one look.
func (r *remote) printTop(cmd *cobra.Command, kind *topKind, d *topData) error {
	columns, out := topColumns(kind), cmd.OutOrStdout()
	byRate.sort(d.rows, columns)
	if r.asJSON {
		rows := append([]topRow{}, d.rows...)
		return printJSON(cmd, map[string]any{"by": kind.by, "window_seconds": d.window.Seconds(), "data": rows})
	}
	const unbounded = 1 << 20
	title, lines := topTable(d.rows, columns, byRate, unbounded, coloured(out))
	_, err := fmt.Fprintln(out, strings.Join(append([]string{title}, lines...), "\n"))
	return err
}
