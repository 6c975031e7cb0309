package cli

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"
)

// Demo are the flags of the command demo.
type Demo struct {
	Folder          string // for its configuration, its keys and its secrets
	Port, AdminPort int    // on the loopback interface
}

func (p *Program) demo() *cobra.Command {
	var d Demo
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "run the gateway with a provider of its own, and print a request",
		Long: `Run the gateway with a provider of its own that serves the model demo. Nothing
has to be there beforehand: its configuration, its key store, an admin token and
a gateway key are made in a folder, and used again the next time. It prints a
request that works as pasted, and ends with Ctrl-C or with its terminal.`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.Demo(cmd.Context(), d) },
	}
	flags := cmd.Flags()
	flags.StringVar(&d.Folder, "data", "data", "`FOLDER` for its files")
	d.Port, d.AdminPort = 8080, 9090
	flags.Var((*port)(&d.Port), "port", "`PORT` for clients, on 127.0.0.1; 0 is any that is free")
	flags.Var((*port)(&d.AdminPort), "admin-port", "`PORT` for the admin page, on 127.0.0.1; 0 is any that is free")
	_ = cmd.MarkFlagDirname("data")
	return cmd
}

// port is a TCP port as a flag.
type port int

func (p *port) String() string { return strconv.Itoa(int(*p)) }

func (p *port) Type() string { return "port" }

func (p *port) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return errors.New("must be a whole number from 0 to 65535")
	}
	*p = port(n)
	return nil
}

// DemoAccess is a gateway key that the demo at data knows, kept if that is one and else a new one, and a
// link to the admin page.
func DemoAccess(ctx context.Context, data, admin, token, kept string) (key, link string, err error) {
	c, err := newClient(admin, token)
	if err != nil {
		return "", "", err
	}
	defer c.http.CloseIdleConnections()
	if key = kept; !c.knows(ctx, data, kept) {
		type made struct{ Key string }
		got, err := into[made](ctx, c, http.MethodPost, "/api/keys", map[string]any{"name": "development"})
		if err != nil {
			return "", "", err
		}
		key = got.Key
	}
	link, err = signInLink(ctx, c)
	return key, link, err
}

// knows reports whether the gateway at data knows a key.
func (c *client) knows(ctx context.Context, data, key string) bool {
	if key == "" {
		return false
	}
	as := *c
	as.base, as.token = data, key
	_, status, err := as.exchange(ctx, http.MethodGet, "/v1/key", nil)
	return err == nil && status == http.StatusOK
}
