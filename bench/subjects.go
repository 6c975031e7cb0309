package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// subject is what is measured: a proxy's process, or the upstream itself.
type subject struct {
	name    string
	address string
	path    string   // of the requests
	keys    []string // gateway keys, for sluice
	model   string
	process *exec.Cmd // nil for the upstream itself
	ended   chan error
	base    int64 // bytes of memory when it had just started
	stderr  bytes.Buffer
}

var errNotInstalled = errors.New("not installed")

const adminToken = "a-token-for-the-bench-alone"

// start starts a subject for a scenario and waits until it serves.
func start(ctx context.Context, name, dir string, s *settings, sc *scenario, up *upstream) (*subject, error) {
	prefix := "/v1"
	if sc.events > 0 {
		prefix = fmt.Sprintf("/v1/%d/%d", sc.events, sc.every.Microseconds())
	}
	sub := &subject{name: name, path: prefix + "/chat/completions", model: "bench", keys: []string{"no-key-needed"}}
	if name == "direct" {
		sub.address = up.address()
		return sub, nil
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	sub.address = "127.0.0.1:" + port
	var command []string
	switch name {
	case "sluice":
		sub.path = "/v1/chat/completions"
		return sub, sub.startSluice(ctx, dir, s, sc, up, prefix)
	case "nginx":
		command, err = nginxCommand(dir, sub.address, up.address())
	case "haproxy":
		command, err = haproxyCommand(dir, sub.address, up.address())
	case "floor":
		var self string
		self, err = os.Executable()
		command = []string{self, "floor", "-listen", sub.address, "-upstream", up.address()}
	default:
		err = errors.New("unknown; there are direct, sluice, nginx, floor and haproxy")
	}
	if err != nil {
		return nil, err
	}
	return sub, sub.run(ctx, command...)
}

// run starts the process and waits until it takes connections.
func (sub *subject) run(ctx context.Context, command ...string) error {
	path, err := exec.LookPath(command[0])
	if err != nil && filepath.IsAbs(command[0]) {
		return err
	} else if err != nil {
		return fmt.Errorf("%s is %w", command[0], errNotInstalled)
	}
	sub.process = exec.Command(path, command[1:]...)
	sub.process.Stderr = &sub.stderr
	sub.process.Env = append(os.Environ(), "SLUICE_ADMIN_TOKEN="+adminToken)
	// Should the bench be killed, its children go with it.
	sub.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := sub.process.Start(); err != nil {
		return err
	}
	sub.ended = make(chan error, 1)
	go func() { sub.ended <- sub.process.Wait() }()
	return sub.await(ctx, sub.address)
}

func (sub *subject) await(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case err := <-sub.ended:
			sub.ended <- err
			return fmt.Errorf("it ended: %v\n%s", err, &sub.stderr)
		case <-ctx.Done():
			return fmt.Errorf("it does not serve: %w\n%s", ctx.Err(), &sub.stderr)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop ends the process. One that ended before is an error.
func (sub *subject) stop() error {
	if sub.process == nil || sub.process.Process == nil {
		return nil
	}
	select {
	case err := <-sub.ended:
		return fmt.Errorf("%s ended early: %v\n%s", sub.name, err, &sub.stderr)
	default:
	}
	_ = sub.process.Process.Kill()
	<-sub.ended
	return nil
}

// cpu is the user and system time of the subject so far. It is the figure that stays put on a
// noisy machine; its resolution is 10 ms.
func (sub *subject) cpu() time.Duration {
	if sub.process == nil {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", sub.process.Process.Pid))
	if err != nil {
		return 0
	}
	// What follows the name, which may have spaces in it: state is the third field of all.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const user, system, ticksPerSecond = 14 - 3, 15 - 3, 100
	u, _ := strconv.Atoi(fields[user])
	k, _ := strconv.Atoi(fields[system])
	return time.Duration(u+k) * time.Second / ticksPerSecond
}

// rss is the memory of the subject now.
func (sub *subject) rss() int64 {
	if sub.process == nil {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", sub.process.Process.Pid))
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, err
}

// startSluice runs the binary with all its features: keys with limits, JSON, annotation,
// metrics.
func (sub *subject) startSluice(ctx context.Context, dir string, s *settings, sc *scenario, up *upstream, prefix string) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	admin := "127.0.0.1:" + port
	path := filepath.Join(dir, "config.yaml")
	config := fmt.Sprintf(`
listen: %s
admin: {listen: %q, token: "${SLUICE_ADMIN_TOKEN}"}
keys: {store: %s}
upstreams: {bench: {base_url: "http://%s%s", api_key: a-provider-key}}
models: {bench: {targets: [{upstream: bench, model: bench-upstream}]}}
`, sub.address, admin, filepath.Join(dir, "keys.db"), up.address(), prefix)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return err
	}
	if err := sub.run(ctx, s.sluice, "-config", path); err != nil {
		return err
	}
	sub.keys = nil
	for range max(1, sc.keys) {
		key, err := makeKey(ctx, admin)
		if err != nil {
			return err
		}
		sub.keys = append(sub.keys, key)
	}
	return nil
}

// makeKey makes a key whose limits are there and are never reached.
func makeKey(ctx context.Context, admin string) (string, error) {
	const spec = `{"name":"bench","limits":{"requests":1000000000,"period":"60s","concurrent":100000}}`
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+admin+"/api/keys", strings.NewReader(spec))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var made struct{ Key string }
	if err := json.Unmarshal(b, &made); err != nil || made.Key == "" {
		return "", fmt.Errorf("no key: %d %s", resp.StatusCode, b)
	}
	return made.Key, nil
}

// nginxCommand is nginx with one worker, as an equal: connections to the upstream are kept, no
// access log, nothing buffered on disk, streams not buffered at all.
func nginxCommand(dir, listen, up string) ([]string, error) {
	path := filepath.Join(dir, "nginx.conf")
	return []string{"nginx", "-p", dir, "-c", path, "-e", "stderr"}, os.WriteFile(path, []byte(`
daemon off;
master_process off;
worker_rlimit_nofile 20000;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 10000; }
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  client_body_buffer_size 2m;
  client_max_body_size 16m;
  keepalive_requests 1000000000;
  upstream up { server `+up+`; keepalive 4096; keepalive_requests 1000000000; }
  server {
    listen `+listen+` backlog=4096;
    location / {
      proxy_pass http://up;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }
  }
}
`), 0o600)
}

// haproxyCommand is HAProxy with one thread, as an equal.
func haproxyCommand(dir, listen, up string) ([]string, error) {
	path := filepath.Join(dir, "haproxy.cfg")
	return []string{"haproxy", "-db", "-f", path}, os.WriteFile(path, []byte(`
global
  nbthread 1
  maxconn 5000
defaults
  mode http
  timeout connect 2s
  timeout client 600s
  timeout server 600s
  http-reuse always
listen bench
  bind `+listen+`
  server up `+up+` pool-max-conn -1
`), 0o600)
}
