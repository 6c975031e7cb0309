//go:build soak

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	floodProcess = 2 << 30     // what the process may have: limits.memory is 70% of it
	floodWait    = time.Second // what a model takes for a short answer

	floodConfig = `
listen: %s
admin: {listen: %q, token: flood-admin-token}
keys: {store: %q}
limits: {memory: 1434MiB}
timeouts: {client: {header: 8s, body: 8s, write: 2s}}
upstreams: {up: {base_url: %q, max_in_flight: 256, queue_timeout: 5s}}
models: {m: {targets: [{upstream: up}]}}
`
)

var floodFactor = flag.Float64("floodfactor", 2, "how much the flood may raise the p99 of others")

// TestFlood: ten thousand connections that send a byte a second, two thousand clients that post
// 5 MB at once, and one that never reads its stream. Another key's p99 stays within twice its usual, the
// process within its memory, and whoever takes too long is cut off.
func TestFlood(t *testing.T) {
	endless := make(chan struct{}, 1) // a stream without end has ended
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("X-Endless") != "" {
			defer func() { endless <- struct{}{} }()
			w.Header().Set("Content-Type", "text/event-stream")
			event := []byte("data: {\"choices\":[{\"delta\":{\"content\":\"" + strings.Repeat("x", 8<<10) + "\"}}]}\n\n")
			for r.Context().Err() == nil {
				if _, err := w.Write(event); err != nil {
					return
				}
			}
			return
		}
		time.Sleep(floodWait)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices":[{}]}`)
	}))
	defer provider.Close()
	s := startFlooded(t, provider.URL+"/v1")
	quiet, flood := s.key("quiet"), s.key("flood")

	probe := startProbes(t, s, quiet)
	time.Sleep(5 * time.Second)
	usual := probe.take()

	s.neverRead(t, flood)
	done := s.attack(t, flood)
	under := probe.take()
	probe.stop()

	select {
	case <-endless:
	case <-time.After(15 * time.Second):
		t.Error("a stream that nobody reads goes on")
	}
	peak := s.peak(t)
	t.Logf("p99 %v, under the flood %v (%d and %d requests); peak memory %d MiB; large bodies: %v; %d of %d slow connections cut off",
		usual.p99, under.p99, usual.n, under.n, peak>>20, done.Large, done.Cut, done.Slow)
	if float64(under.p99) > *floodFactor*float64(usual.p99) {
		t.Errorf("p99 rose from %v to %v", usual.p99, under.p99)
	}
	if peak > floodProcess {
		t.Errorf("the process took %d MiB", peak>>20)
	}
	if done.Large[200] == 0 || done.Large[200]+done.Large[503]+done.Large[408] != floodLarge { // 408: it was too slow
		t.Errorf("large bodies got %v", done.Large)
	}
	if done.Cut != done.Slow {
		t.Errorf("of %d slow connections %d were cut off", done.Slow, done.Cut)
	}
	s.wantIdle(t)
}

const floodLarge = 2000

// attacked is what became of an attack.
type attacked struct {
	Slow, Cut int
	Large     map[int]int // statuses of large bodies
}

// attack attacks s from a process of its own that leaves the processors to the others, as one on
// another machine would.
func (s *flooded) attack(t *testing.T, key string) (done attacked) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestFloodAttacker$", "-test.v")
	cmd.Env = append(os.Environ(), "FLOOD_ADDRESS="+s.address, "FLOOD_KEY="+key)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	_, report, found := strings.Cut(string(out), "attacked: ")
	if err != nil || !found || json.NewDecoder(strings.NewReader(report)).Decode(&done) != nil {
		t.Fatalf("the attacker: %v\n%s", err, out)
	}
	return done
}

// TestFloodAttacker is the other process.
func TestFloodAttacker(t *testing.T) {
	s := &flooded{t: t, address: os.Getenv("FLOOD_ADDRESS")}
	if s.address == "" {
		t.Skip("started by TestFlood")
	}
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19); err != nil {
		t.Fatal(err)
	}
	key := os.Getenv("FLOOD_KEY")
	done := attacked{Slow: connections(t), Large: map[int]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range done.Slow {
		wg.Go(func() {
			cut := s.crawl(i, key)
			mu.Lock()
			defer mu.Unlock()
			if cut {
				done.Cut++
			}
		})
		if i%100 == 99 { // as fast as they can be accepted
			time.Sleep(10 * time.Millisecond)
		}
	}
	body := append([]byte(`{"model":"m","x":"`), append(bytes.Repeat([]byte("y"), 5_000_000), `"}`...)...)
	for range floodLarge {
		wg.Go(func() {
			status := s.post(t, key, body)
			mu.Lock()
			defer mu.Unlock()
			done.Large[status]++
		})
	}
	wg.Wait()
	report, err := json.Marshal(done)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("attacked: %s\n", report)
}

// connections is how many slow ones there may be: both ends and the rest need file descriptors.
func connections(t *testing.T) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := min(10_000, int(limit.Cur)-4000)
	if n < 1000 {
		t.Skipf("only %d file descriptors", limit.Cur)
	}
	return n
}

// flooded is a sluice of its own process.
type flooded struct {
	t              *testing.T
	address, admin string
	process        *exec.Cmd
}

func startFlooded(t *testing.T, provider string) *flooded {
	t.Helper()
	dir := t.TempDir()
	s := &flooded{t: t, address: freePort(t), admin: freePort(t)}
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, floodConfig, s.address, s.admin, filepath.Join(dir, "keys.db"), provider), 0o600); err != nil {
		t.Fatal(err)
	}
	s.process = sluice(t, "-config", path)
	s.process.Env = append(s.process.Env, "GOMEMLIMIT="+strconv.Itoa(floodProcess*9/10))
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.process.Process.Signal(syscall.SIGTERM)
		if err := s.process.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + s.admin + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				return s
			}
		}
		if time.Since(began) > 10*time.Second {
			t.Fatal("it does not serve")
		}
	}
}

func (s *flooded) ask(method, path, body string, into any) {
	s.t.Helper()
	req, err := http.NewRequest(method, "http://"+s.admin+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer flood-admin-token")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		s.t.Fatal(err)
	}
}

func (s *flooded) key(name string) string {
	s.t.Helper()
	var made struct{ Key string }
	s.ask("POST", "/api/keys", fmt.Sprintf(`{"name":%q}`, name), &made)
	return made.Key
}

// crawl sends a request a byte a second, its head or, for every other, its body, and reports whether it was cut off.
func (s *flooded) crawl(i int, key string) bool {
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Error(err)
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(25 * time.Second))
	if i%2 == 0 {
		fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000000\r\n\r\n", key)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn)
		ended <- err
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-ended: // closed, with a 408 or a reset
			return !errors.Is(err, os.ErrDeadlineExceeded)
		case <-tick.C:
			_, _ = conn.Write([]byte("{"))
		}
	}
}

// neverRead asks for a stream without end and reads nothing of it.
func (s *flooded) neverRead(t *testing.T, key string) {
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { conn.Close() })
	const body = `{"model":"m","stream":true}`
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Endless: yes\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", key, len(body), body)
}

// post returns the status of an answer that came whole.
func (s *flooded) post(t *testing.T, key string, body []byte) int {
	req, err := http.NewRequest("POST", "http://"+s.address+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+key)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || !json.Valid(b) {
		t.Errorf("%d %.100q, %v", resp.StatusCode, b, err)
	}
	return resp.StatusCode
}

// peak is the most memory that the process ever had.
func (s *flooded) peak(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// wantIdle waits until nothing is in flight any more.
func (s *flooded) wantIdle(t *testing.T) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		var list []struct {
			InFlight int64 `json:"in_flight"`
		}
		var raw json.RawMessage
		s.ask("GET", "/api/upstreams", "", &raw)
		var wrapped struct{ Data json.RawMessage }
		if json.Unmarshal(raw, &wrapped) == nil && wrapped.Data != nil {
			raw = wrapped.Data
		}
		if err := json.Unmarshal(raw, &list); err != nil || len(list) != 1 {
			t.Fatalf("%s, %v", raw, err)
		}
		if list[0].InFlight == 0 {
			return
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("%d are in flight", list[0].InFlight)
		}
	}
}

// probes are the requests of a key that does nothing out of the ordinary.
type probes struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	took []time.Duration
}

type probed struct {
	n   int
	p99 time.Duration
}

func startProbes(t *testing.T, s *flooded, key string) *probes {
	ctx, cancel := context.WithCancel(context.Background())
	p := &probes{cancel: cancel}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	for range 100 {
		p.wg.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				req, _ := http.NewRequest("POST", "http://"+s.address+"/v1/chat/completions", strings.NewReader(`{"model":"m"}`))
				req.Header.Set("Authorization", "Bearer "+key)
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 || err != nil {
					t.Errorf("another key's request got %d %s, %v", resp.StatusCode, body, err)
				}
				p.mu.Lock()
				p.took = append(p.took, time.Since(began))
				p.mu.Unlock()
			}
		})
	}
	t.Cleanup(client.CloseIdleConnections)
	return p
}

// take is what there was since the last one.
func (p *probes) take() probed {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.took)
	r := probed{n: len(p.took)}
	if r.n > 0 {
		r.p99 = p.took[(r.n-1)*99/100]
	}
	p.took = nil
	return r
}

func (p *probes) stop() {
	p.cancel()
	p.wg.Wait()
}
