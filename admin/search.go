package admin

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"sluice/keys"
)

// keySorts are the orders that keys can be listed in. Each is a number, or a text.
var keySorts = map[string]func(a *Admin, k *keys.Key) (float64, string){
	"created": func(_ *Admin, k *keys.Key) (float64, string) { return 0, k.Spec().ID },
	"name":    func(_ *Admin, k *keys.Key) (float64, string) { return 0, strings.ToLower(k.Spec().Name) },
	"expires": func(_ *Admin, k *keys.Key) (float64, string) {
		if at := k.Spec().ExpiresAt; at != nil {
			return float64(at.Unix()), ""
		}
		return 1e18, ""
	},
	"in_flight": func(_ *Admin, k *keys.Key) (float64, string) { return float64(k.Gate.InFlight()), "" },
	"used":      func(a *Admin, k *keys.Key) (float64, string) { return a.usedPart(k), "" },
}

// usedPart is how much of the limit that is nearest the key has used.
func (a *Admin) usedPart(k *keys.Key) (part float64) {
	limits := &k.Spec().Limits
	used := k.Used(a.clock())
	for name, limit := range map[string]*int64{"requests": limits.Requests, "tokens": limits.Tokens} {
		if n, is := used[name]; is && limit != nil {
			part = max(part, float64(n)/float64(*limit))
		}
	}
	if limits.Concurrent != nil {
		part = max(part, float64(k.Gate.InFlight())/float64(*limits.Concurrent))
	}
	return part
}

// keyState reads the state that a list of keys is narrowed to.
func keyState(q url.Values) (func(*keys.Spec) bool, error) {
	now := time.Now()
	switch q.Get("state") {
	case "":
		return func(*keys.Spec) bool { return true }, nil
	case "active":
		return func(s *keys.Spec) bool { return s.Usable(now) }, nil
	case "disabled":
		return func(s *keys.Spec) bool { return s.Disabled }, nil
	case "expired":
		return func(s *keys.Spec) bool { return !s.Disabled && !s.Usable(now) }, nil
	}
	return nil, badParam("state", "must be active, disabled or expired")
}

// maxOffset is the most keys that a search passes over.
const maxOffset = 1_000_000

// searchKeys lists the keys whose name, note, id or prefix has a text in it, in an order of choice.
func (a *Admin) searchKeys(w http.ResponseWriter, r *http.Request, limit int) {
	q := r.URL.Query()
	order, down := strings.CutPrefix(cmp.Or(q.Get("sort"), "created"), "-")
	of := keySorts[order]
	inState, err := keyState(q)
	offset := 0
	if err == nil && of == nil {
		err = badParam("sort", "must be created, name, expires, in_flight or used, with - before it for the other direction")
	}
	if err == nil {
		offset, err = wholeParam(q, "offset", 0, maxOffset, 0)
	}
	if err != nil {
		refuseParam(w, err)
		return
	}
	text := strings.ToLower(q.Get("q"))
	found := a.keys.Find(func(k *keys.Key) bool { s := k.Spec(); return inState(s) && isFound(s, text) })
	first := firstKeys(a, found, of, down, offset+limit)
	page := first[min(offset, len(first)):]
	data := make([]keyView, len(page))
	for i, k := range page {
		data[i] = a.view(k)
	}
	writeJSON(w, 200, map[string]any{"object": "list", "data": data, "has_more": offset+limit < len(found), "total": len(found)})
}

func isFound(s *keys.Spec, text string) bool {
	return text == "" || strings.Contains(strings.ToLower(s.Name), text) || strings.Contains(strings.ToLower(s.Note), text) ||
		strings.Contains(s.ID, text) || strings.HasPrefix(strings.ToLower(s.Prefix), text)
}

// keyRow is what was read of a key, once: it may change meanwhile.
type keyRow struct {
	key    *keys.Key
	number float64
	text   string
	id     string
}

// mostKept is up to how many first keys are kept in order while the others are looked at. For more of them
// all are sorted.
const mostKept = 2000

// firstKeys returns the first n of the keys that were found.
func firstKeys(a *Admin, found []*keys.Key, of func(*Admin, *keys.Key) (float64, string), down bool, n int) []*keys.Key {
	order := func(x, y keyRow) int {
		c := cmp.Or(cmp.Compare(x.number, y.number), strings.Compare(x.text, y.text))
		if down {
			c = -c
		}
		return cmp.Or(c, strings.Compare(x.id, y.id))
	}
	keep := n
	if n > mostKept {
		keep = len(found)
	}
	rows := make([]keyRow, 0, min(keep, len(found))+1)
	for _, k := range found {
		row := keyRow{key: k, id: k.Spec().ID}
		row.number, row.text = of(a, k)
		switch {
		case n > mostKept:
			rows = append(rows, row)
		case len(rows) < keep || order(row, rows[keep-1]) < 0:
			at, _ := slices.BinarySearchFunc(rows, row, order)
			rows = slices.Insert(rows, at, row)
			rows = rows[:min(len(rows), keep)]
		}
	}
	if n > mostKept {
		slices.SortFunc(rows, order)
	}
	first := make([]*keys.Key, 0, min(n, len(rows)))
	for _, row := range rows[:min(n, len(rows))] {
		first = append(first, row.key)
	}
	return first
}
