package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

// arrivals is a provider that notes when requests were sent (they say so themselves) and when they came.
type arrivals struct {
	mu  sync.Mutex
	all upstreamtest.Moments
}

func (a *arrivals) serve(t *testing.T) string {
	t.Helper()
	up := upstreamtest.NewRaw(t, func(conn net.Conn, r *upstreamtest.Recorded) {
		sent, _ := strconv.ParseInt(r.Header.Get("X-Sent"), 10, 64)
		a.mu.Lock()
		a.all = append(a.all, upstreamtest.Moment{After: time.Unix(0, sent), Before: time.Now()})
		a.mu.Unlock()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	})
	return "http://" + up.Address() + "/v1"
}

func (a *arrivals) count() int { return a.lately(time.Hour) }

// lately is how many arrived in the last d.
func (a *arrivals) lately(d time.Duration) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all.Lately(d)
}

// TestThreeNodes: three processes and a real Redis. The limit holds for all of them together, measured where
// the requests arrive, whatever becomes of Redis; one of them is killed with leases out; what is made and revoked
// on one holds on all.
func TestThreeNodes(t *testing.T) {
	t.Parallel()
	redis := upstreamtest.StartRedis(t)
	var up arrivals
	base := up.serve(t)
	var nodes []*lineage
	for range 3 {
		dir := t.TempDir()
		path := filepath.Join(dir, "config.yaml")
		write(t, path, strings.Replace(settings(dir, base, "retry: {max_retries: 0}\n"), filepath.Join(dir, "keys.db"), redis.URL()+", without_store: strict", 1))
		nodes = append(nodes, found(t, path, nil))
	}
	const limit, period = 300, 2 * time.Second
	const away = 4 * time.Second // for long enough that the nodes go on by themselves
	status, text := nodes[0].node.call("POST", nodes[0].node.admin+"/api/keys", adminToken,
		`{"name":"x","limits":{"requests":300,"period":"2s"}}`)
	if status != 201 {
		t.Fatal(text)
	}
	secret := text[strings.Index(text, `"key":"`)+7:][:53]
	id := text[strings.Index(text, `"id":"`)+6:][:28]
	get := func(l *lineage) int {
		status, _ := l.node.call("GET", l.node.data+"/v1/key", secret, "")
		return status
	}
	for _, l := range nodes {
		within(t, time.Second+time.Second/2, "a new key holds", func() bool { return get(l) == 200 })
	}
	if _, text := nodes[1].node.call("GET", nodes[1].node.data+"/readyz?verbose", "", ""); !strings.Contains(text, "shared by 3 nodes") {
		t.Errorf("%s", text)
	}

	ctx, cancel := context.WithCancel(context.Background())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i, l := range nodes {
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					req, _ := http.NewRequest("POST", l.node.data+"/v1/chat/completions", strings.NewReader(`{"model":"demo"}`))
					req.Header.Set("Authorization", "Bearer "+secret)
					req.Header.Set("X-Sent", strconv.FormatInt(time.Now().UnixNano(), 10))
					resp, err := client.Do(req)
					if err != nil {
						if i == 2 {
							return // it was killed
						}
						t.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if resp.StatusCode == 429 { // all together ask for several times the limit
						time.Sleep(10 * time.Millisecond)
					} else if resp.StatusCode != 200 && resp.StatusCode != 503 {
						t.Errorf("status %d", resp.StatusCode)
						return
					}
				}
			})
		}
	}
	time.Sleep(2 * period)
	_ = syscall.Kill(nodes[2].pid, syscall.SIGKILL)
	time.Sleep(3 * period)
	// A machine that other tests keep busy gives them their time when those have ended.
	within(t, time.Minute, "nearly all that the limit allows arrive", func() bool {
		return up.lately(5*period) >= 5*limit*8/10
	})
	for _, fault := range []func(){
		func() { redis.Signal(syscall.SIGSTOP); time.Sleep(away); redis.Signal(syscall.SIGCONT) },
		func() { redis.Command("FLUSHALL") },
		func() { redis.Kill(); time.Sleep(away); redis.Start() },
	} {
		fault()
		time.Sleep(period) // what leases were left is spent
		before := up.count()
		within(t, 20*time.Second, "requests are admitted again", func() bool { return up.count() > before+limit })
	}
	cancel()
	wg.Wait()
	if most := up.all.Most(period); most > limit {
		t.Errorf("%d requests in a period have reached the upstream, the limit is %d", most, limit)
	}
	t.Logf("%d requests, %d at most in a period", up.count(), up.all.Most(period))

	nodes[1].node.call("DELETE", nodes[1].node.admin+"/api/keys/"+id, adminToken, "")
	within(t, time.Second+time.Second/2, "it is revoked everywhere", func() bool { return get(nodes[0]) == 401 })

	// Without Redis keys cannot be changed, and the nodes say so.
	redis.Kill()
	within(t, 10*time.Second, "it is said", func() bool {
		_, ready := nodes[0].node.call("GET", nodes[0].node.admin+"/readyz?verbose", "", "")
		_, metrics := nodes[0].node.call("GET", nodes[0].node.admin+"/metrics", adminToken, "")
		return strings.Contains(ready, "has not answered") && strings.Contains(metrics, "sluice_shared_store_up 0\n") && strings.Contains(nodes[0].log.String(), "the shared key store does not answer")
	})
	if status, text := nodes[0].node.call("POST", nodes[0].node.admin+"/api/keys", adminToken, `{"name":"y"}`); status != 503 {
		t.Errorf("%d %s", status, text)
	}
	redis.Start()
	within(t, 10*time.Second, "keys can be made again", func() bool {
		status, _ := nodes[0].node.call("POST", nodes[0].node.admin+"/api/keys", adminToken, `{"name":"y"}`)
		return status == 201
	})
	http.DefaultClient.CloseIdleConnections()
	for _, l := range nodes[:2] {
		l.signal(syscall.SIGTERM)
		l.ended(l.pid)
	}
}

// TestRedisOverTLS: with a password, an authority of its own, and a certificate.
func TestRedisOverTLS(t *testing.T) {
	t.Parallel()
	ca := upstreamtest.NewAuthority(t)
	cert, key := ca.Issue(t.TempDir(), "redis.test")
	_, port, _ := net.SplitHostPort(freePort(t))
	upstreamtest.StartRedis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca.File, "--tls-auth-clients", "no", "--requirepass", "sesame")
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	url := "rediss://default:${REDIS_PASSWORD}@127.0.0.1:" + port + "/0"
	write(t, path, strings.Replace(settings(dir, "http://127.0.0.1:1/v1", ""), filepath.Join(dir, "keys.db"), `"`+url+`"`, 1))
	none := t.TempDir() // of the machine's authorities: reading them all takes long under the race detector
	program := func(password string) *exec.Cmd {
		cmd := sluice(t, "-config", path)
		cmd.Env = append(cmd.Env, "REDIS_PASSWORD="+password, "SSL_CERT_FILE="+ca.File, "SSL_CERT_DIR="+none)
		return cmd
	}
	l := found(t, path, program("sesame"))
	status, text := l.node.call("POST", l.node.admin+"/api/keys", adminToken, `{"name":"x"}`)
	if status != 201 {
		t.Errorf("%d %s", status, text)
	}
	_, shown := l.node.call("GET", l.node.admin+"/api/config", adminToken, "")
	if !strings.Contains(shown, "rediss://[redacted]@127.0.0.1:"+port+"/0") || strings.Contains(shown+l.log.String(), "sesame") {
		t.Errorf("%s\n%s", shown, &l.log)
	}
	// Another process takes over; both have the store meanwhile.
	http.DefaultClient.CloseIdleConnections()
	l.signal(syscall.SIGUSR2)
	l.ended(l.serves())
	if _, text := l.node.call("GET", l.node.admin+"/api/keys", adminToken, ""); strings.Count(text, `"id":`) != 1 {
		t.Errorf("%s", text)
	}
	http.DefaultClient.CloseIdleConnections()
	l.signal(syscall.SIGTERM)
	l.ended(l.pid)

	// And what is said when it is not to be had.
	if out, err := program("another").CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "cannot reach the shared key store") || strings.Contains(string(out), "another@") {
		t.Errorf("%v %s", err, out)
	}
}
