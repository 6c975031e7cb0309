package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// listed is a list as the admin port shows it.
type listed[T any] struct {
	Data []T `json:"data"`
}

// upstream is one as the admin port shows it.
type upstream struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	InFlight    int64  `json:"in_flight"`
	Waiting     int64  `json:"waiting"`
	Connections int    `json:"connections"`
	Drained     bool   `json:"drained"`
	Requests    int64  `json:"requests"`
	Failures    int64  `json:"failures"`
	LastFailure *struct {
		At    time.Time `json:"at"`
		Cause string    `json:"cause"`
	} `json:"last_failure"`
	Targets []target `json:"targets"`
}

// model is one as the admin port shows it.
type model struct {
	ID        string   `json:"id"`
	Targets   []target `json:"targets"`
	Fallbacks []string `json:"fallbacks"`
}

type target struct {
	Upstream   string  `json:"upstream"`
	Model      string  `json:"model"`  // of an upstream's, the public name
	Target     string  `json:"target"` // of an upstream's, the upstream's own name
	Weight     int     `json:"weight"`
	InFlight   int64   `json:"in_flight"`
	Breaker    string  `json:"breaker"`
	Refused    bool    `json:"credential_refused"`
	Drained    bool    `json:"drained"`
	ServesIn   float64 `json:"serves_in_seconds"`
	Credential string  `json:"credential"`
}

// state is whether the target serves, and why not.
func (t *target) state() cell {
	why := cell{t.Breaker, red}
	switch {
	case t.Drained:
		return cell{"drained", yellow}
	case t.Credential != "":
		return cell{"credential " + t.Credential, red}
	case t.Refused:
		why.text += ", credential refused"
	case t.Breaker == "closed":
		why.style = green
	}
	if t.ServesIn > 0 {
		why = cell{why.text + fmt.Sprintf(", serves in %.1fs", t.ServesIn), red}
	}
	return why
}

func (p *Program) upstreams() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "upstreams",
		Short: "show the upstreams of a running sluice; drain one",
		Long: "Show the upstreams of a running sluice. drain takes one out of service, and\n" +
			"undrain takes it back in.",
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return r.show(cmd, "/api/upstreams", printUpstreams) },
	}
	r.bind(cmd)
	cmd.AddCommand(r.drain(), r.undrain())
	return cmd
}

func (p *Program) models() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "models",
		Short: "show the models of a running sluice, and where each is served",
		Args:  takes(0, 0, ""),
		RunE:  func(cmd *cobra.Command, _ []string) error { return r.show(cmd, "/api/models", printModels) },
	}
	r.bind(cmd)
	return cmd
}

// show prints a list of the admin port's.
func (r *remote) show(cmd *cobra.Command, path string, print func(io.Writer, []json.RawMessage) error) error {
	answer, err := r.ask(cmd, "GET", path, nil)
	if err != nil || r.asJSON {
		return err
	}
	var list listed[json.RawMessage]
	if json.Unmarshal(answer, &list) != nil {
		return errNoSluice
	}
	return print(cmd.OutOrStdout(), list.Data)
}

func printUpstreams(to io.Writer, list []json.RawMessage) error {
	t := newTable(to, "UPSTREAM", "ADDRESS", "STATE", "REQUESTS", "FAILURES", "IN FLIGHT", "WAITING", "CONNECTIONS", "LAST FAILURE")
	for _, text := range list {
		var u upstream
		if json.Unmarshal(text, &u) != nil {
			return errNoSluice
		}
		last := "-"
		if u.LastFailure != nil {
			last = u.LastFailure.Cause + " at " + u.LastFailure.At.Format(time.RFC3339)
		}
		state := cell{"in service", green}
		if u.Drained {
			state = cell{"drained", yellow}
		}
		t.add(plain(u.Name), plain(u.Address), state, u.Requests, u.Failures, u.InFlight, u.Waiting, u.Connections, last)
	}
	return t.print(to)
}

func printModels(to io.Writer, list []json.RawMessage) error {
	t := newTable(to, "MODEL", "UPSTREAM", "TARGET", "WEIGHT", "IN FLIGHT", "BREAKER", "FALLS BACK TO")
	for _, text := range list {
		var m model
		if json.Unmarshal(text, &m) != nil {
			return errNoSluice
		}
		fallbacks := "-"
		if len(m.Fallbacks) > 0 {
			fallbacks = strings.Join(m.Fallbacks, ", ")
		}
		for _, target := range m.Targets {
			t.add(plain(m.ID), plain(target.Upstream), plain(target.Model), target.Weight, target.InFlight, target.state(), plain(fallbacks))
		}
	}
	return t.print(to)
}
