package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/internal/upstreamtest"
	"sluice/mock"
)

// The tests here run the program in this process, where goleak sees what it leaves behind. Those that
// start processes of it are in e2e, a module of its own.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // but for what libraries leave
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*HostClient).connsCleaner"))
}

const adminToken = "0123456789abcdef"

// node is a running program.
type node struct {
	t           testing.TB
	data, admin string // base URLs
	log         *upstreamtest.Buffer
	hup         chan os.Signal
	path        string        // of its configuration
	stop        func()        // as SIGTERM
	done        chan struct{} // closed when it has ended
	err         error         // with which, after done
}

// settings is a configuration file in dir, for a provider at base.
func settings(dir, base, more string) string {
	return fmt.Sprintf(`
listen: 127.0.0.1:0
admin: {listen: 127.0.0.1:0, token: %s}
keys: {store: %s}
upstreams: {up: {base_url: "%s"}}
models: {demo: {targets: [{upstream: up, model: demo-model}]}}
%s
`, adminToken, filepath.Join(dir, "keys.db"), base, more)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

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

// begin runs the program in this process, with a provider at base.
func begin(t testing.TB, base, more string) *node {
	t.Helper()
	dir := t.TempDir()
	return beginIn(t, dir, settings(dir, base, more))
}

// beginIn runs the program in this process, on a configuration that it writes to dir.
func beginIn(t testing.TB, dir, text string) *node {
	t.Helper()
	n := &node{t: t, log: &upstreamtest.Buffer{}, hup: make(chan os.Signal, 1), path: filepath.Join(dir, "config.yaml"), done: make(chan struct{})}
	write(t, n.path, text)
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	ready := make(chan struct{})
	go func() {
		defer close(n.done)
		n.err = run(ctx, []string{"-config", n.path}, io.Discard, n.log, func() <-chan os.Signal { return n.hup }, func(data, admin net.Addr) {
			n.data, n.admin = "http://"+data.String(), "http://"+admin.String()
			close(ready)
		})
	}()
	select {
	case <-ready:
	case <-n.done:
		t.Fatalf("it did not start: %v\n%s", n.err, n.log)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		<-n.done
	})
	return n
}

func (n *node) call(method, url, auth, body string) (int, string) {
	n.t.Helper()
	return upstreamtest.Call(n.t, method, url, auth, body)
}

func (n *node) key(body string) string {
	n.t.Helper()
	status, text := n.call("POST", n.admin+"/api/keys", adminToken, body)
	var made struct{ Key string }
	if err := json.Unmarshal([]byte(text), &made); err != nil || status != 201 {
		n.t.Fatalf("%d %s %v", status, text, err)
	}
	return made.Key
}

func TestFromConfigurationToAnswer(t *testing.T) {
	t.Parallel()
	n := begin(t, provider(t, &mock.Provider{Chunks: 5}), "access_log: true")
	key := n.key(`{"name":"x"}`)
	status, body := n.call("POST", n.data+"/v1/chat/completions", key, `{"model":"demo","messages":[]}`)
	if status != 200 || !strings.HasPrefix(body, `{"gateway":{"model":"demo","upstream":"up","attempts":1},`) || !strings.Contains(body, `"model":"demo-model"`) {
		t.Errorf("%d %s", status, body)
	}
	status, body = n.call("POST", n.data+"/v1/chat/completions", key, `{"model":"demo","stream":true,"messages":[]}`)
	if status != 200 || strings.Count(body, "data: ") != 8 || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("%d %s", status, body)
	}
	status, body = n.call("POST", n.data+"/v1/messages", key, `{"model":"demo","stream":true,"messages":[]}`)
	if status != 200 || !strings.HasSuffix(body, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n") {
		t.Errorf("%d %s", status, body)
	}
	if status, body = n.call("GET", n.admin+"/metrics", adminToken, ""); !strings.Contains(body, `sluice_requests_total{class="2xx",model="demo",upstream="up"} 3`) {
		t.Errorf("%d %s", status, body)
	}
	n.stop()
	<-n.done
	if n.err != nil {
		t.Error(n.err)
	}
	log := n.log.String()
	if strings.Count(log, `"msg":"request"`) != 3 || !strings.Contains(log, `"path":"/v1/messages"`) || !strings.Contains(log, `"trail":"demo@up;200;`) {
		t.Errorf("access log: %s", log)
	}
	if strings.Contains(log, key) || strings.Contains(log, adminToken) {
		t.Errorf("a secret is in the log: %s", log)
	}
	for line := range strings.Lines(log) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not a JSON line: %s", line)
		}
	}
}

// TestDrain: what runs ends, readiness is taken back at once, nobody new comes in.
func TestDrain(t *testing.T) {
	t.Parallel()
	n := begin(t, provider(t, &mock.Provider{Chunks: 20, ChunkDelay: 20 * time.Millisecond}), "")
	key := n.key(`{"name":"x"}`)
	req, _ := http.NewRequest("POST", n.data+"/v1/chat/completions", strings.NewReader(`{"model":"demo","stream":true,"messages":[]}`))
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stream := bufio.NewReader(resp.Body)
	if line, err := stream.ReadString('\n'); err != nil || !strings.HasPrefix(line, "data: ") {
		t.Fatal(line, err)
	}
	n.stop()
	for status := 200; status != 503; { // the admin port answers while the data port drains
		status, _ = n.call("GET", n.admin+"/readyz", adminToken, "")
	}
	rest, err := io.ReadAll(stream)
	if err != nil || !bytes.HasSuffix(rest, []byte("data: [DONE]\n\n")) {
		t.Errorf("the stream was cut: %v %.100q", err, rest)
	}
	<-n.done
	if n.err != nil {
		t.Error(n.err)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(n.data, "http://")); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
}

func TestReloadBySignalAndByFile(t *testing.T) {
	t.Parallel()
	base := provider(t, &mock.Provider{Chunks: 1})
	n := begin(t, base, "")
	key := n.key(`{"name":"x"}`)
	dir := filepath.Dir(n.path)
	models := func() string { _, body := n.call("GET", n.data+"/v1/models", key, ""); return body }
	waitFor := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("not in time: ", what)
			}
		}
	}
	write(t, n.path, strings.Replace(settings(dir, base, ""), "models: {", "models: {second: {targets: [{upstream: up}]}, ", 1))
	waitFor("the file is followed", func() bool { return strings.Contains(models(), "second") })
	generation := func() string { _, body := n.call("GET", n.admin+"/metrics", adminToken, ""); return body }
	n.hup <- syscall.SIGHUP
	waitFor("SIGHUP is followed", func() bool { return strings.Contains(generation(), "sluice_config_generation 3") })
	write(t, n.path, "models: {}")
	waitFor("a bad file is told", func() bool { return strings.Contains(generation(), "sluice_config_last_reload_successful 0") })
	if status, _ := n.call("POST", n.data+"/v1/chat/completions", key, `{"model":"second"}`); status != 200 {
		t.Errorf("after a bad file: %d", status)
	}
}

func TestCommands(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	write(t, good, settings(dir, "http://127.0.0.1:1/v1", ""))
	write(t, bad, "lissten: x\n")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	occupied := filepath.Join(dir, "occupied.yaml")
	write(t, occupied, strings.Replace(settings(dir, "http://127.0.0.1:1/v1", ""), "listen: 127.0.0.1:0", "listen: "+taken.Addr().String(), 1))
	for _, test := range []struct {
		args []string
		want string // part of the error; "" for none
	}{
		{[]string{"check", "-config", good}, ""},
		{[]string{"check", "-config", bad}, bad + ":1:1: lissten: unknown field"},
		{[]string{"check", "-config", filepath.Join(dir, "none.yaml")}, "cannot read config"},
		{[]string{"-config", bad}, "admin.token: is needed"},
		{[]string{"-config", occupied}, "cannot listen (listen): "},
		{[]string{"check", good}, ""},
		{[]string{"check", "extra"}, "cannot read config: stat extra: "},
		{[]string{"mock", "-chunks", "0"}, "--chunks of at least 1"},
		{[]string{"mock", "-listen", taken.Addr().String()}, "cannot listen"},
	} {
		var out upstreamtest.Buffer
		err := run(context.Background(), test.args, io.Discard, &out, nil, nil)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v", test.args, err)
		}
	}
}

// TestReplaceable: process 1 of a container is not, all of whose processes end with it.
func TestReplaceable(t *testing.T) {
	if replaceable(1) == nil || replaceable(2) != nil {
		t.Errorf("replaceable: %v, %v", replaceable(1), replaceable(2))
	}
}
