package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"

	"sluice/config"
)

// valueChange is a value that a reload would change. Both are without secrets; null is none.
type valueChange struct {
	Path string `json:"path"`
	From any    `json:"from"`
	To   any    `json:"to"`
}

// maxChanges bounds what a comparison of two configurations shows.
const maxChanges = 500

// showConfigDiff answers what a reload would change, or why there would be none.
func (a *Admin) showConfigDiff(w http.ResponseWriter, r *http.Request) {
	p := a.live.Preview(r.Context())
	answer := map[string]any{"object": "config.diff", "changed": p.Changed, "error": "", "changes": []valueChange{}, "more": 0, "hidden": false,
		"restart": append([]string{}, p.Restart...), "warnings": []string{}}
	if p.Err != nil {
		answer["error"] = p.Err.Error()
		writeJSON(w, 200, answer)
		return
	}
	changes := compare(nil, "", plain(a.live.Status().Config), plain(p.Config))
	answer["hidden"] = p.Changed && len(changes) == 0
	if more := len(changes) - maxChanges; more > 0 {
		changes, answer["more"] = changes[:maxChanges], more
	}
	answer["changes"], answer["warnings"] = append([]valueChange{}, changes...), append([]string{}, p.Config.Warnings()...)
	writeJSON(w, 200, answer)
}

// plain is a configuration as /api/config shows it, without its secrets.
func plain(c *config.Config) (v any) {
	text, err := json.Marshal(c)
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		panic("BUG: a configuration is not JSON: " + err.Error())
	}
	return v
}

// compare appends where two values differ.
func compare(to []valueChange, path string, before, after any) []valueChange {
	switch b := before.(type) {
	case map[string]any:
		if a, is := after.(map[string]any); is {
			names := maps.Clone(b)
			maps.Copy(names, a)
			for _, name := range slices.Sorted(maps.Keys(names)) {
				at := name
				if path != "" {
					at = path + "." + name
				}
				to = compare(to, at, b[name], a[name])
			}
			return to
		}
	case []any:
		if a, is := after.([]any); is && len(a) == len(b) {
			for i := range b {
				to = compare(to, fmt.Sprintf("%s[%d]", path, i), b[i], a[i])
			}
			return to
		}
	}
	if !reflect.DeepEqual(before, after) {
		to = append(to, valueChange{path, before, after})
	}
	return to
}
