package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// key is one as the admin port shows it.
type key struct {
	ID        string     `json:"id"`
	Prefix    string     `json:"prefix"`
	Secret    string     `json:"key"`
	Name      string     `json:"name"`
	Note      string     `json:"note"`
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

func (k *key) state() cell {
	switch {
	case k.Disabled:
		return cell{"disabled", yellow}
	case k.ExpiresAt != nil && !time.Now().Before(*k.ExpiresAt):
		return cell{"expired", yellow}
	}
	return cell{"active", green}
}

func (k *key) print(to io.Writer) error {
	t := newTable(to)
	line := func(name string, value any) { t.add(name, value) }
	if k.Secret != "" {
		line("key", k.Secret+"   (shown this once)")
	}
	line("id", k.ID)
	line("name", plain(k.Name))
	if k.Note != "" {
		line("note", plain(k.Note))
	}
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
	return t.print(to)
}

// list prints all keys, page by page.
func list(ctx context.Context, admin *client, asJSON bool, to io.Writer) error {
	t := newTable(to, "ID", "NAME", "PREFIX", "STATE", "REQUESTS", "TOKENS", "PERIOD", "IN FLIGHT")
	all := []json.RawMessage{}
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
				return errNoSluice
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
			t.add(k.ID, plain(k.Name), k.Prefix, k.state(),
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
	return t.print(to)
}
