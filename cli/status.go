package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (p *Program) status() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "status",
		Short: "say how a running sluice is: its upstreams and its models",
		Long: "Say how a running sluice is: whether it takes traffic, its configuration, its\n" +
			"upstreams and its models. The exit code is 0 if it takes traffic, else 1.",
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return r.status(cmd) },
	}
	r.bind(cmd)
	return cmd
}

// loaded is what the admin port says of the configuration in effect.
type loaded struct {
	Generation int       `json:"generation"`
	LoadedAt   time.Time `json:"loaded_at"`
	Error      string    `json:"error"`
	Restart    []string  `json:"restart,omitempty"` // what of it takes effect at the next start only
}

// afterRestart is what is not in effect before the next start, for the end of a line.
func (l *loaded) afterRestart() string {
	if len(l.Restart) == 0 {
		return ""
	}
	return "; at the next start only: " + strings.Join(l.Restart, ", ")
}

func (r *remote) status(cmd *cobra.Command) error {
	ctx := cmd.Context()
	admin, err := r.client(ctx)
	if err != nil {
		return err
	}
	_, status, err := admin.exchange(ctx, "GET", "/readyz", nil)
	if err != nil {
		return err
	}
	ready := status == 200
	upstreams, err := into[listed[json.RawMessage]](ctx, admin, "GET", "/api/upstreams", nil)
	if err != nil {
		return err
	}
	models, err := into[listed[json.RawMessage]](ctx, admin, "GET", "/api/models", nil)
	if err != nil {
		return err
	}
	config, err := into[loaded](ctx, admin, "GET", "/api/config", nil)
	if err != nil {
		return err
	}
	if r.asJSON {
		err = printJSON(cmd, map[string]any{"ready": ready, "config": config, "upstreams": upstreams.Data, "models": models.Data})
	} else {
		err = printStatus(cmd, ready, config, upstreams.Data, models.Data)
	}
	if err == nil && !ready {
		err = errors.New("the gateway does not take traffic")
	}
	return err
}

func printStatus(cmd *cobra.Command, ready bool, config loaded, upstreams, models []json.RawMessage) error {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "ready: %t\nconfiguration %d, loaded %s%s\n", ready, config.Generation, config.LoadedAt.Format(time.RFC3339), config.afterRestart())
	if config.Error != "" {
		fmt.Fprintf(out, "the newest configuration is not in effect:\n%s\n", config.Error)
	}
	fmt.Fprintln(out)
	if err := printUpstreams(out, upstreams); err != nil {
		return err
	}
	fmt.Fprintln(out)
	return printModels(out, models)
}

func (p *Program) reload() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "have a running sluice read its configuration again",
		Long: "Have a running sluice read its configuration again. If that is wrong, the\n" +
			"findings are printed, the old one stays in effect and the exit code is 1.",
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := r.ask(cmd, "POST", "/api/reload", nil)
			if err != nil || r.asJSON {
				return err
			}
			var now loaded
			if json.Unmarshal(answer, &now) != nil {
				return errNoSluice
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "configuration %d is in effect%s\n", now.Generation, now.afterRestart())
			return err
		},
	}
	r.bind(cmd)
	return cmd
}
