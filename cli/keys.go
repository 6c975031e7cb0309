package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
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

-json prints what the admin port answers. SLUICE_ADMIN is that port's URL (default
` + defaultAdmin + `), SLUICE_ADMIN_TOKEN its token.
`

// change are the flags that say what a key shall be.
type change struct {
	fields map[string]any
	limits map[string]any
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

// plain is text that does nothing to a terminal.
func plain(text string) string {
	if strings.ContainsFunc(text, unicode.IsControl) {
		return strconv.Quote(text)
	}
	return text
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
	}
	path := "/api/keys"
	if wanted == 1 {
		path += "/" + url.PathEscape(words[0])
	}
	var answer json.RawMessage
	switch action {
	case "list":
		return list(ctx, admin, *asJSON, stdout)
	case "create":
		answer, err = admin.call(ctx, "POST", path, c.body())
	case "show":
		answer, err = admin.call(ctx, "GET", path, nil)
	case "update":
		answer, err = admin.call(ctx, "PATCH", path, c.body())
	case "rotate":
		answer, err = admin.call(ctx, "POST", path+"/rotate", nil)
	case "revoke":
		answer, err = admin.call(ctx, "DELETE", path, nil)
	}
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
		return fmt.Errorf("%s does not answer as a sluice does", admin.base)
	}
	return k.print(stdout)
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

// key is one as the admin port shows it.
type key struct {
	ID        string     `json:"id"`
	Prefix    string     `json:"prefix"`
	Secret    string     `json:"key"`
	Name      string     `json:"name"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	Disabled  bool       `json:"disabled"`
	Models    []string   `json:"models"`
	Limits    struct {
		Requests   *int64 `json:"requests"`
		Tokens     *int64 `json:"tokens"`
		Period     string `json:"period"`
		Concurrent *int64 `json:"concurrent"`
	} `json:"limits"`
	InFlight int64 `json:"in_flight"`
	Used     struct {
		Requests int64 `json:"requests"`
		Tokens   int64 `json:"tokens"`
	} `json:"used"`
}

func (k *key) state() string {
	switch {
	case k.Disabled:
		return "disabled"
	case k.ExpiresAt != nil && !time.Now().Before(*k.ExpiresAt):
		return "expired"
	}
	return "active"
}

func (k *key) print(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	line := func(name, value string) { fmt.Fprintf(w, "%s\t%s\n", name, value) }
	if k.Secret != "" {
		line("key", k.Secret+"   (shown this once)")
	}
	line("id", k.ID)
	line("name", plain(k.Name))
	line("prefix", k.Prefix)
	line("state", k.state())
	line("models", plain(strings.Join(k.Models, ", ")))
	line("created", k.CreatedAt.Format(time.RFC3339))
	if k.ExpiresAt != nil {
		line("expires", k.ExpiresAt.Format(time.RFC3339))
	}
	limit := func(name string, limit *int64, used int64, per string) {
		if limit != nil {
			line(name, fmt.Sprintf("%d of %d%s", used, *limit, per))
		}
	}
	per := " in " + k.Limits.Period
	limit("requests", k.Limits.Requests, k.Used.Requests, per)
	limit("tokens", k.Limits.Tokens, k.Used.Tokens, per)
	limit("in flight", k.Limits.Concurrent, k.InFlight, "")
	return w.Flush()
}

// list prints all keys, page by page.
func list(ctx context.Context, admin *client, asJSON bool, to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	all := []json.RawMessage{}
	fmt.Fprintln(w, "ID\tNAME\tPREFIX\tSTATE\tREQUESTS\tTOKENS\tPERIOD\tIN FLIGHT")
	for after := ""; ; {
		type page struct {
			Data []json.RawMessage `json:"data"`
			More bool              `json:"has_more"`
		}
		got, err := into[page](ctx, admin, "GET", "/api/keys?limit=1000&after="+url.QueryEscape(after), nil)
		if err != nil {
			return err
		}
		for _, text := range got.Data {
			var k key
			if json.Unmarshal(text, &k) != nil {
				return fmt.Errorf("%s does not answer as a sluice does", admin.base)
			}
			after = k.ID
			of := func(limit *int64, used int64) string {
				if limit == nil {
					return "-"
				}
				return fmt.Sprintf("%d/%d", used, *limit)
			}
			period := k.Limits.Period
			if period == "" {
				period = "-"
			}
			inFlight := strconv.FormatInt(k.InFlight, 10)
			if k.Limits.Concurrent != nil {
				inFlight = of(k.Limits.Concurrent, k.InFlight)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, plain(k.Name), k.Prefix, k.state(),
				of(k.Limits.Requests, k.Used.Requests), of(k.Limits.Tokens, k.Used.Tokens), period, inFlight)
		}
		all = append(all, got.Data...)
		if !got.More || len(got.Data) == 0 {
			break
		}
	}
	if asJSON {
		return json.NewEncoder(to).Encode(map[string]any{"object": "list", "data": all})
	}
	return w.Flush()
}

// export prints every key, as import takes it.
func export(ctx context.Context, admin *client, to io.Writer) error {
	answer, err := admin.call(ctx, "GET", "/api/export", nil)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to, "%s\n", answer)
	return err
}

// importBatch is how many keys are sent at a time.
const importBatch = 500

// take sends what export has printed: a file's content, or the standard input's.
func take(ctx context.Context, admin *client, files []string, to io.Writer) error {
	from := os.Stdin
	if len(files) > 0 {
		f, err := os.Open(files[0])
		if err != nil {
			return fmt.Errorf("cannot read what to import: %w", err)
		}
		defer f.Close()
		from = f
	}
	var all struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(from).Decode(&all); err != nil || all.Keys == nil {
		return errors.New("what to import is not what sluice keys export prints")
	}
	type done struct{ Added, Known int }
	var sum done
	for batch := range slices.Chunk(all.Keys, importBatch) {
		got, err := into[done](ctx, admin, "POST", "/api/import", map[string]any{"keys": batch})
		if err != nil {
			return fmt.Errorf("%d keys were added, %d were there already; then: %w", sum.Added, sum.Known, err)
		}
		sum.Added += got.Added
		sum.Known += got.Known
	}
	_, err := fmt.Fprintf(to, "%d keys were added, %d were there already\n", sum.Added, sum.Known)
	return err
}
