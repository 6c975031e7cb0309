package e2e

import (
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

// TestWithoutRedis: Redis goes while three nodes have a key with a limit a day. With share the requests go on, and the
// last refusal says why; with strict, to which a reload changes, they get 503. The log, /readyz?verbose and the metrics say
// which it is.
func TestWithoutRedis(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	var up arrivals
	base := up.serve(t)
	var nodes []*lineage
	var paths, texts []string
	for range 3 {
		dir := t.TempDir()
		paths = append(paths, filepath.Join(dir, "config.yaml"))
		texts = append(texts, strings.Replace(settings(dir, base, "retry: {max_retries: 0}\n"), filepath.Join(dir, "keys.db"), redis.URL(), 1))
		write(t, paths[len(paths)-1], texts[len(texts)-1])
		nodes = append(nodes, found(t, paths[len(paths)-1], nil))
	}
	status, text := nodes[0].node.call("POST", nodes[0].node.admin+"/api/keys", adminToken, `{"name":"x","limits":{"requests":30,"period":"24h"}}`)
	if status != 201 {
		t.Fatal(text)
	}
	secret := text[strings.Index(text, `"key":"`)+7:][:53]
	for _, l := range nodes {
		within(t, 10*time.Second, "the key is known, and the others", func() bool {
			status, _ := l.node.call("GET", l.node.data+"/v1/key", secret, "")
			_, ready := l.node.call("GET", l.node.data+"/readyz?verbose", "", "")
			return status == 200 && strings.Contains(ready, "shared by 3 nodes")
		})
	}
	ask := func(l *lineage) (int, string) {
		return l.node.call("POST", l.node.data+"/v1/chat/completions", secret, `{"model":"demo"}`)
	}
	says := func(l *lineage, ready, metric string) {
		t.Helper()
		within(t, 10*time.Second, "it is said: "+ready, func() bool {
			_, got := l.node.call("GET", l.node.admin+"/readyz?verbose", "", "")
			_, metrics := l.node.call("GET", l.node.admin+"/metrics", adminToken, "")
			return strings.Contains(got, ready) && strings.Contains(metrics, metric)
		})
	}

	redis.Kill()
	for i, l := range nodes {
		for range 10 {
			if status, text := ask(l); status != 200 {
				t.Fatalf("node %d: %d %s", i, status, text)
			}
		}
		status, text := ask(l)
		if status != 429 || !strings.Contains(text, "this node's share, 10, of its limit of 30 requests per 24h0m0s") {
			t.Errorf("node %d: %d %s", i, status, text)
		}
	}
	says(nodes[0], "(keys.without_store: share)", "sluice_without_store{rule=\"share\"} 1\nsluice_without_store{rule=\"strict\"} 0\n")
	nodes[0].wait("each node admits its share of each limit")

	write(t, paths[0], strings.Replace(texts[0], redis.URL(), redis.URL()+", without_store: strict", 1))
	nodes[0].signal(syscall.SIGHUP)
	says(nodes[0], "(keys.without_store: strict)", "sluice_without_store{rule=\"share\"} 0\nsluice_without_store{rule=\"strict\"} 1\n")
	if status, text := ask(nodes[0]); status != 503 || !strings.Contains(text, `"overloaded"`) {
		t.Errorf("%d %s", status, text)
	}
	redis.Start()
	says(nodes[0], "shared by", "sluice_without_store{rule=\"share\"} 0\nsluice_without_store{rule=\"strict\"} 0\n")
	nodes[0].wait("the shared key store answers again")
	within(t, 20*time.Second, "all is counted", func() bool {
		status, text := ask(nodes[0])
		if status == 200 {
			t.Fatal("more is admitted than the limit")
		}
		return status == 429 && strings.Contains(text, "at its limit of 30 requests")
	})
	if n := up.count(); n != 30 {
		t.Errorf("%d requests have come", n)
	}
	http.DefaultClient.CloseIdleConnections()
	for _, l := range nodes {
		l.signal(syscall.SIGTERM)
		l.ended(l.pid)
	}
}
