package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// StatusUsage is how the command status is called.
const StatusUsage = `usage:
  sluice status [-json]   whether it is ready, its configuration, upstreams and breakers

SLUICE_ADMIN is the admin port's URL (default ` + defaultAdmin + `), SLUICE_ADMIN_TOKEN its
token. The exit status is 0 if the gateway takes traffic.
`

// upstream is one as the admin port shows it.
type upstream struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	InFlight    int64  `json:"in_flight"`
	Waiting     int64  `json:"waiting"`
	Connections int    `json:"connections"`
	Requests    int64  `json:"requests"`
	Failures    int64  `json:"failures"`
	LastFailure *struct {
		At    time.Time `json:"at"`
		Cause string    `json:"cause"`
	} `json:"last_failure"`
	Targets []struct {
		Model    string  `json:"model"`
		Target   string  `json:"target"`
		Breaker  string  `json:"breaker"`
		Refused  bool    `json:"credential_refused"`
		ServesIn float64 `json:"serves_in_seconds"`
	} `json:"targets"`
}

// Status is the command status. args follow the word.
func Status(ctx context.Context, args []string, env func(string) string, stdout io.Writer) error {
	flags := flag.NewFlagSet("sluice status", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	asJSON := flags.Bool("json", false, "")
	switch words, err := parse(flags, args); {
	case errors.Is(err, flag.ErrHelp):
		_, err := io.WriteString(stdout, StatusUsage)
		return err
	case err != nil:
		return fmt.Errorf("%w\n%s", err, StatusUsage)
	case len(words) > 0:
		return fmt.Errorf("sluice status takes no %q\n%s", words[0], StatusUsage)
	}
	admin, err := newClient(env)
	if err != nil {
		return err
	}
	_, status, err := admin.exchange(ctx, "GET", "/readyz", nil)
	if err != nil {
		return err
	}
	ready := status == 200
	type listed struct {
		Data []json.RawMessage `json:"data"`
	}
	ups, err := into[listed](ctx, admin, "GET", "/api/upstreams", nil)
	if err != nil {
		return err
	}
	type loaded struct {
		Generation int       `json:"generation"`
		LoadedAt   time.Time `json:"loaded_at"`
		Error      string    `json:"error"`
	}
	config, err := into[loaded](ctx, admin, "GET", "/api/config", nil)
	if err != nil {
		return err
	}
	if *asJSON {
		err = json.NewEncoder(stdout).Encode(map[string]any{"ready": ready, "config": config, "upstreams": ups.Data})
	} else {
		fmt.Fprintf(stdout, "ready: %t\nconfiguration %d, loaded %s\n", ready, config.Generation, config.LoadedAt.Format(time.RFC3339))
		if config.Error != "" {
			fmt.Fprintf(stdout, "the newest configuration is not in effect:\n%s\n", config.Error)
		}
		err = printUpstreams(stdout, ups.Data)
	}
	if err == nil && !ready {
		err = errors.New("the gateway does not take traffic")
	}
	return err
}

func printUpstreams(to io.Writer, list []json.RawMessage) error {
	ups := make([]upstream, len(list))
	for i, text := range list {
		if json.Unmarshal(text, &ups[i]) != nil {
			return errors.New("the admin port does not answer as a sluice does")
		}
	}
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\nUPSTREAM\tADDRESS\tREQUESTS\tFAILURES\tIN FLIGHT\tWAITING\tCONNECTIONS\tLAST FAILURE")
	for _, u := range ups {
		last := "-"
		if u.LastFailure != nil {
			last = u.LastFailure.Cause + " at " + u.LastFailure.At.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", u.Name, u.Address, u.Requests, u.Failures, u.InFlight, u.Waiting, u.Connections, last)
	}
	fmt.Fprintln(w, "\nMODEL\tUPSTREAM\tTARGET\tBREAKER")
	for _, u := range ups {
		for _, t := range u.Targets {
			state := t.Breaker
			if t.Refused {
				state += ", credential refused"
			}
			if t.ServesIn > 0 {
				state += fmt.Sprintf(", serves in %.1fs", t.ServesIn)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", t.Model, u.Name, t.Target, state)
		}
	}
	return w.Flush()
}
