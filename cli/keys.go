package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// change are the flags that say what a key shall be.
type change struct {
	fields map[string]any
	limits map[string]any
	force  bool
}

func (c *change) bind(flags *pflag.FlagSet) {
	c.fields, c.limits = map[string]any{}, map[string]any{}
	into := func(to map[string]any, name, field, usage string, read func(string) (any, error)) {
		flags.Func(name, usage, func(text string) (err error) {
			to[field], err = read(text)
			return err
		})
	}
	text := func(text string) (any, error) { return text, nil }
	into(c.fields, "name", "name", "`NAME`: what or whom the key is for", text)
	into(c.fields, "note", "note", "`TEXT` for those who look after the key; \"\" for none", text)
	into(c.fields, "models", "models", "`A,B`: the models it may use; * is all of them", func(text string) (any, error) { return names(text), nil })
	into(c.fields, "expires", "expires_at", "`TIME` such as 2027-01-31T00:00:00Z, a time from now such as 720h, or none", expiry)
	into(c.limits, "requests", "requests", "`N` requests in any period, or none for any number", number)
	into(c.limits, "tokens", "tokens", "`N` tokens in any period, or none", number)
	into(c.limits, "concurrent", "concurrent", "`N` requests at once, or none", number)
	into(c.limits, "period", "period", "`TIME` of both limits, such as 60s", text)
	flags.BoolVar(&c.force, "force", false, "allow models that are not configured yet, and a time in the past")
	flags.BoolFunc("disabled", "refuse the key, until --disabled=false", func(text string) error {
		disabled, err := strconv.ParseBool(text)
		c.fields["disabled"] = disabled
		return err
	})
}

// names are what stands between commas.
func names(text string) []string {
	list := strings.Split(text, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

func number(text string) (any, error) {
	if text == "none" {
		return nil, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, errors.New("must be a whole number, or none")
	}
	return n, nil
}

func expiry(text string) (any, error) {
	if text == "none" {
		return nil, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(d).UTC().Truncate(time.Second), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, errors.New("must be a time such as 2027-01-31T00:00:00Z, a time from now such as 720h, or none")
	}
	return at, nil
}

// body is the request's; it has what was given and nothing else.
func (c *change) body() map[string]any {
	if len(c.limits) > 0 {
		c.fields["limits"] = c.limits
	}
	return c.fields
}

// keys is the command keys, with those under it.
func (p *Program) keys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "make, show, change and revoke gateway keys",
		Long:  "Make, show, change and revoke the gateway keys of a running sluice.",
		Args:  takes(0, 0, ""),
	}
	needsCommand(cmd)
	var r remote
	r.bind(cmd)
	cmd.AddCommand(r.createKey(), r.listKeys(), r.showKey(), r.updateKey(), r.rotateKey(), r.revokeKey(), r.exportKeys(), r.importKeys())
	return cmd
}

const oneID = "the id of one key"

func (r *remote) createKey() *cobra.Command {
	var c change
	cmd := &cobra.Command{
		Use:     "create",
		Short:   "make a key and show it, this once",
		Example: `  sluice keys create --name "search team" --models gpt-4o --requests 600`,
		Args:    takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.oneKey(cmd, "POST", "/api/keys"+c.query(), c.body())
		},
	}
	c.bind(cmd.Flags())
	return cmd
}

func (r *remote) listKeys() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "show all keys, without their secrets",
		Args:  takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			admin, err := r.client(cmd.Context())
			if err != nil {
				return err
			}
			return list(cmd.Context(), admin, r.asJSON, cmd.OutOrStdout())
		},
	}
}

func (r *remote) showKey() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "show one key, without its secret",
		Args:  takes(1, 1, oneID),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return r.oneKey(cmd, "GET", keyPath(ids[0]), nil)
		},
	}
}

func (r *remote) updateKey() *cobra.Command {
	var c change
	cmd := &cobra.Command{
		Use:     "update ID",
		Short:   "change what is given and nothing else",
		Example: "  sluice keys update key_8kq2 --requests 20 --period 10s --tokens none",
		Args:    takes(1, 1, oneID),
		RunE: func(cmd *cobra.Command, ids []string) error {
			if len(c.body()) == 0 {
				return misuse(cmd, "has nothing to change")
			}
			return r.oneKey(cmd, "PATCH", keyPath(ids[0])+c.query(), c.body())
		},
	}
	c.bind(cmd.Flags())
	return cmd
}

func (r *remote) rotateKey() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate ID",
		Short: "give a key a new secret; the old one stops at once",
		Args:  takes(1, 1, oneID),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return r.oneKey(cmd, "POST", keyPath(ids[0])+"/rotate", nil)
		},
	}
}

func (r *remote) revokeKey() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "delete a key",
		Args:  takes(1, 1, oneID),
		RunE: func(cmd *cobra.Command, ids []string) error {
			if _, err := r.ask(cmd, "DELETE", keyPath(ids[0]), nil); err != nil || r.asJSON {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is revoked\n", ids[0])
			return err
		},
	}
}

func keyPath(id string) string { return "/api/keys/" + url.PathEscape(id) }

func (c *change) query() string {
	if c.force {
		return "?force=true"
	}
	return ""
}

// oneKey asks the admin port, and prints the key that it answers with.
func (r *remote) oneKey(cmd *cobra.Command, method, path string, body any) error {
	unprinted := *r
	unprinted.asJSON = false
	answer, err := unprinted.ask(cmd, method, path, body)
	if err != nil {
		return err
	}
	var k key
	if json.Unmarshal(answer, &k) != nil {
		return errNoSluice
	}
	if r.asJSON {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", answer)
	} else {
		err = k.print(cmd.OutOrStdout())
	}
	if err != nil && k.Secret != "" {
		err = fmt.Errorf("key %s has a new secret, which could not be printed and is lost; sluice keys rotate %s gives it another: %w",
			k.ID, k.ID, err)
	}
	return err
}

// ask asks the admin port. With --json it prints the answer.
func (r *remote) ask(cmd *cobra.Command, method, path string, body any) (json.RawMessage, error) {
	admin, err := r.client(cmd.Context())
	if err != nil {
		return nil, err
	}
	answer, err := admin.call(cmd.Context(), method, path, body)
	if err == nil && r.asJSON {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", answer)
	}
	return answer, err
}
