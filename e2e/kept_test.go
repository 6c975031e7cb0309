package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/mock"
)

// TestCountsSurviveARestart: what was counted by the minute is there again after the process has ended, beside
// the keys.
func TestCountsSurviveARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := settings(dir, provider(t, &mock.Provider{Chunks: 1}), "")
	counted := func(n *node) float64 {
		t.Helper()
		_, body := n.call("GET", n.admin+"/api/series?range=24h&by=model", adminToken, "")
		var v struct {
			Data []struct {
				Name string
				Sum  float64
			}
		}
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		for _, l := range v.Data {
			if l.Name == "demo" {
				return l.Sum
			}
		}
		return 0
	}
	n := beginIn(t, dir, text)
	key := n.key(`{"name":"counted"}`)
	for range 3 {
		n.call("POST", n.data+"/v1/chat/completions", key, `{"model":"demo"}`)
	}
	for deadline := time.Now().Add(10 * time.Second); counted(n) != 3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the requests are not counted")
		}
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(filepath.Join(dir, "*.series"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("%v %v", kept, err)
	}
	if content, err := os.ReadFile(kept[0]); err != nil || strings.Contains(string(content), key) {
		t.Errorf("%v, or the key's secret is kept", err)
	}
	again := beginIn(t, dir, text)
	if got := counted(again); got != 3 {
		t.Errorf("%v requests after the restart", got)
	}
	_, body := again.call("GET", again.admin+"/api/series?range=24h", adminToken, "")
	if strings.Count(body, "sluice started") != 2 {
		t.Errorf("the starts are not marked: %s", body)
	}
}
