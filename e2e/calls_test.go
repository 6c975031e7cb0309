package e2e

import (
	"context"
	"encoding/json"
	"net"
	"testing"

	"sluice/internal/upstreamtest"

	"sluice/mock"
)

// provider serves p until the test ends and returns its base URL.
func provider(t testing.TB, p *mock.Provider) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String() + "/v1"
}

// call sends a request and returns the answer's status and body.
func (n *node) call(method, url, auth, body string) (int, string) {
	n.t.Helper()
	return upstreamtest.Call(n.t, method, url, auth, body)
}

// key makes a key of what body says and returns its secret.
func (n *node) key(body string) string {
	n.t.Helper()
	status, text := n.call("POST", n.admin+"/api/keys", adminToken, body)
	var made struct{ Key string }
	if err := json.Unmarshal([]byte(text), &made); err != nil || status != 201 {
		n.t.Fatalf("%d %s %v", status, text, err)
	}
	return made.Key
}
