package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// KeysUsage is how the command keys is called.
const KeysUsage = `usage:
  sluice keys create -name NAME [LIMITS]   make a key and show it, this once
  sluice keys list                         all keys, without their secrets
  sluice keys show ID                      one of them
  sluice keys update ID [LIMITS]           change what is given and nothing else
  sluice keys rotate ID                    give it a new secret; the old one stops at once
  sluice keys revoke ID                    delete it
  sluice keys export                       all keys as JSON: hashes and limits, no secret
  sluice keys import [FILE]                take what another gateway has exported

LIMITS:
  -name NAME        what or whom the key is for
  -models A,B       the models it may use; "*" is all of them
  -requests N       requests in any period, or "none" for any number
  -tokens N         tokens in any period, or "none"
  -period 60s       of both
  -concurrent N     requests at once, or "none"
  -expires TIME     such as 2027-01-31T00:00:00Z, a time from now such as 720h, or "none"
  -disabled         refuse it until -disabled=false
  -force            allow models that are not configured yet, and a time in the past

-json prints what the admin port answers. SLUICE_ADMIN is that port's URL (default
` + defaultAdmin + `), SLUICE_ADMIN_TOKEN its token.
`

// change are the flags that say what a key shall be.
type change struct {
	fields map[string]any
	limits map[string]any
	force  bool
}

func (c *change) bind(flags *flag.FlagSet) {
	c.fields, c.limits = map[string]any{}, map[string]any{}
	into := func(to map[string]any, name, field string, read func(string) (any, error)) {
		flags.Func(name, "", func(text string) (err error) {
			to[field], err = read(text)
			return err
		})
	}
	text := func(text string) (any, error) { return text, nil }
	into(c.fields, "name", "name", text)
	into(c.fields, "models", "models", func(text string) (any, error) { return names(text), nil })
	into(c.fields, "expires", "expires_at", expiry)
	into(c.limits, "requests", "requests", number)
	into(c.limits, "tokens", "tokens", number)
	into(c.limits, "concurrent", "concurrent", number)
	into(c.limits, "period", "period", text)
	flags.BoolVar(&c.force, "force", false, "")
	flags.BoolFunc("disabled", "", func(text string) error {
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

// Keys is the command keys. args follow the word.
func Keys(ctx context.Context, args []string, env func(string) string, stdout io.Writer) error {
	action := ""
	if len(args) > 0 {
		action, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("sluice keys", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the error is printed once, by main
	asJSON := flags.Bool("json", false, "")
	var c change
	if action == "create" || action == "update" {
		c.bind(flags)
	}
	words, err := parse(flags, args)
	if errors.Is(err, flag.ErrHelp) || action == "-h" || action == "-help" || action == "--help" {
		_, err := io.WriteString(stdout, KeysUsage)
		return err
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, KeysUsage)
	}
	wanted, known := map[string]int{"create": 0, "list": 0, "show": 1, "update": 1, "rotate": 1, "revoke": 1, "export": 0, "import": 0}[action]
	if action == "import" && len(words) == 1 {
		wanted = 1
	}
	switch {
	case !known:
		return fmt.Errorf("sluice keys does not know %q\n%s", action, KeysUsage)
	case len(words) != wanted && wanted == 1:
		return fmt.Errorf("sluice keys %s takes the id of one key\n%s", action, KeysUsage)
	case len(words) != wanted:
		return fmt.Errorf("sluice keys %s takes no %q\n%s", action, words[0], KeysUsage)
	case action == "update" && len(c.body()) == 0:
		return fmt.Errorf("sluice keys update has nothing to change\n%s", KeysUsage)
	}
	admin, err := newClient(env)
	if err != nil {
		return err
	}
	switch action {
	case "export":
		return export(ctx, admin, stdout)
	case "import":
		return take(ctx, admin, words, stdout)
	case "list":
		return list(ctx, admin, *asJSON, stdout)
	}
	answer, err := ask(ctx, admin, action, words, &c)
	switch {
	case err != nil:
		return err
	case *asJSON:
		_, err = fmt.Fprintf(stdout, "%s\n", answer)
		return err
	case action == "revoke":
		_, err = fmt.Fprintf(stdout, "%s is revoked\n", words[0])
		return err
	}
	var k key
	if json.Unmarshal(answer, &k) != nil {
		return admin.noSluice()
	}
	return k.print(stdout)
}

// ask has the admin port do what is wanted of a new key, or of the one whose id is the word.
func ask(ctx context.Context, admin *client, action string, words []string, c *change) (json.RawMessage, error) {
	query := ""
	if c.force {
		query = "?force=true"
	}
	if action == "create" {
		return admin.call(ctx, "POST", "/api/keys"+query, c.body())
	}
	path := "/api/keys/" + url.PathEscape(words[0])
	switch action {
	case "update":
		return admin.call(ctx, "PATCH", path+query, c.body())
	case "rotate":
		return admin.call(ctx, "POST", path+"/rotate", nil)
	case "revoke":
		return admin.call(ctx, "DELETE", path, nil)
	}
	return admin.call(ctx, "GET", path, nil)
}

// parse reads flags before, between and after words.
func parse(flags *flag.FlagSet, args []string) (words []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return words, nil
		}
		words, args = append(words, flags.Arg(0)), flags.Args()[1:]
	}
}
