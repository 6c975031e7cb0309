package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

const oneUpstream = "the name of one upstream, or UPSTREAM/TARGET"

func (r *remote) drain() *cobra.Command {
	return &cobra.Command{
		Use:   "drain UPSTREAM[/TARGET]",
		Short: "send an upstream no new requests",
		Long: `Send an upstream no new requests, or only one of its targets: what it calls a
model. Requests that are in flight there end by themselves; status shows how
many they are. Other targets and fallbacks serve; a model without any answers
503. It lasts until undrain or until the process ends, reloads included.`,
		Example: "  sluice upstreams drain openai\n  sluice upstreams drain openai/gpt-5-mini",
		Args:    takes(1, 1, oneUpstream),
		RunE:    func(cmd *cobra.Command, words []string) error { return r.turn(cmd, words[0], "drain") },
	}
}

func (r *remote) undrain() *cobra.Command {
	return &cobra.Command{
		Use:   "undrain UPSTREAM[/TARGET]",
		Short: "send a drained upstream requests again",
		Args:  takes(1, 1, oneUpstream),
		RunE:  func(cmd *cobra.Command, words []string) error { return r.turn(cmd, words[0], "undrain") },
	}
}

// turn drains or undrains what name is the name of.
func (r *remote) turn(cmd *cobra.Command, name, how string) error {
	admin, err := r.client(cmd.Context())
	if err != nil {
		return err
	}
	up, target, err := splitTarget(cmd.Context(), admin, name)
	if err != nil {
		return err
	}
	path := "/api/upstreams/" + url.PathEscape(up) + "/" + how
	if target != "" {
		path += "?target=" + url.QueryEscape(target)
	}
	answer, err := r.ask(cmd, "POST", path, nil)
	if err != nil || r.asJSON {
		return err
	}
	var now upstream
	if json.Unmarshal(answer, &now) != nil {
		return errNoSluice
	}
	inFlight := now.InFlight
	if target != "" {
		inFlight = 0
		for _, t := range now.Targets {
			if t.Target == target {
				inFlight += t.InFlight
			}
		}
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is %sed; in flight there: %d\n", plain(name), how, inFlight)
	return err
}

// splitTarget splits UPSTREAM/TARGET. A slash may be in either name: an upstream of the whole name goes
// first, and after that the longest.
func splitTarget(ctx context.Context, admin *client, name string) (up, target string, err error) {
	known, err := into[listed[upstream]](ctx, admin, "GET", "/api/upstreams", nil)
	if err != nil {
		return "", "", err
	}
	for up = name; ; {
		if rest := name[len(up):]; rest != "/" && slices.ContainsFunc(known.Data, func(u upstream) bool { return u.Name == up }) {
			return up, strings.TrimPrefix(rest, "/"), nil
		}
		at := strings.LastIndexByte(up, '/')
		if at < 0 {
			up, target, found := strings.Cut(name, "/") // which the gateway says it does not know
			if found && target == "" {
				return "", "", fmt.Errorf("after the slash of %s the target must be what the upstream calls a model", name)
			}
			return up, target, nil
		}
		up = name[:at]
	}
}
