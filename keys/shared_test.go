package keys

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

// redisServer is a real one, on a port of its own.
type redisServer struct {
	t    testing.TB
	port string
	dir  string
	cmd  *exec.Cmd
}

func startRedis(t testing.TB) *redisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	ln.Close()
	r := &redisServer{t: t, port: port, dir: t.TempDir()}
	r.start()
	t.Cleanup(func() { r.kill() })
	return r
}

func (r *redisServer) url() string { return "redis://127.0.0.1:" + r.port + "/0" }

// start has every change on disk before it is answered, as the docs advise.
func (r *redisServer) start() {
	r.t.Helper()
	r.cmd = exec.Command("redis-server", "--port", r.port, "--bind", "127.0.0.1", "--dir", r.dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always")
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	for {
		conn, err := net.Dial("tcp", "127.0.0.1:"+r.port)
		if err == nil {
			answer := make([]byte, 7)
			_, _ = conn.Write([]byte("PING\r\n"))
			n, _ := conn.Read(answer)
			conn.Close()
			if string(answer[:n]) == "+PONG\r\n" {
				return
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *redisServer) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

func (r *redisServer) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

func (r *redisServer) command(args ...string) {
	r.t.Helper()
	if out, err := exec.Command("redis-cli", append([]string{"-p", r.port}, args...)...).CombinedOutput(); err != nil {
		r.t.Fatalf("%q: %v %s", args, err, out)
	}
}

// testNode is a store on a shared Redis, with a clock of its own.
type testNode struct {
	*Store
	log *upstreamtest.Buffer
}

func openNode(t testing.TB, url string) testNode {
	t.Helper()
	began := time.Now()
	log := &upstreamtest.Buffer{}
	s, err := OpenShared(url, func() time.Duration { return time.Since(began) }, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return testNode{s, log}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestSharedKeys: what one node changes holds on the others.
func TestSharedKeys(t *testing.T) {
	redis := startRedis(t)
	a, b := openNode(t, redis.url()), openNode(t, redis.url())
	made, secret := create(t, a.Store, Spec{Name: "x", Limits: Limits{Requests: ptr(int64(5))}})
	eventually(t, "the key is known there", func() bool { return b.Lookup([]byte(secret)) != nil })
	if _, err := b.Update(made.ID, func(s *Spec) error { s.Name = "y"; return nil }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its name is known here", func() bool { return a.Lookup([]byte(secret)).Spec().Name == "y" })
	_, rotated, err := a.Rotate(made.ID)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old secret has stopped there", func() bool { return b.Lookup([]byte(secret)) == nil && b.Lookup([]byte(rotated)) != nil })
	if err := b.Delete(made.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is revoked here", func() bool { return a.Lookup([]byte(rotated)) == nil && a.Count() == 0 })

	// Both change one key at the same moment: one of them is told so, none is overwritten.
	made, _ = create(t, a.Store, Spec{Name: "0"})
	eventually(t, "it is known there", func() bool { return b.Count() == 1 })
	var changes, refused atomic.Int64
	var wg sync.WaitGroup
	for _, n := range []testNode{a, b} {
		wg.Go(func() {
			for range 50 {
				_, err := n.Update(made.ID, func(s *Spec) error { s.Name += "+"; return nil })
				if err == nil {
					changes.Add(1)
				} else {
					refused.Add(1)
					_ = n.shared.sync(context.Background())
				}
			}
		})
	}
	wg.Wait()
	for _, n := range []testNode{a, b} {
		eventually(t, "all changes are known", func() bool {
			k, _ := n.Get(made.ID)
			return strings.Count(k.Spec().Name, "+") == int(changes.Load())
		})
	}
	t.Logf("%d changes, %d refused", changes.Load(), refused.Load())

	c := openNode(t, redis.url()) // and one that comes later
	if c.Count() != 1 {
		t.Errorf("%d keys", c.Count())
	}
}

// admitted is how many of the decisions of nodes, as fast as they can, were admissions, and when.
type admissions struct {
	mu  sync.Mutex
	at  []time.Time
	per []int
}

func (a *admissions) drive(ctx context.Context, nodes []testNode, id string) {
	a.per = make([]int, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		k, err := n.Get(id)
		if err != nil {
			panic(err)
		}
		for range 3 {
			wg.Go(func() {
				for ctx.Err() == nil {
					before := time.Now()
					if _, ok, _ := k.Admit(n.now()); ok {
						a.mu.Lock()
						a.at = append(a.at, before)
						a.per[i]++
						a.mu.Unlock()
					} else {
						time.Sleep(200 * time.Microsecond)
					}
				}
			})
		}
	}
	wg.Wait()
}

// most is how many admissions the fullest interval of length period has.
func (a *admissions) most(period time.Duration) (most int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.at
	// Those of several goroutines are not quite in order.
	for i := 1; i < len(at); i++ {
		for j := i; j > 0 && at[j].Before(at[j-1]); j-- {
			at[j], at[j-1] = at[j-1], at[j]
		}
	}
	first := 0
	for i := range at {
		for at[i].Sub(at[first]) > period {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// TestSharedLimit: over any period all nodes together admit no more than the limit, and one busy one
// gets nearly all of it.
func TestSharedLimit(t *testing.T) {
	redis := startRedis(t)
	const limit, period = 500, time.Second
	for _, count := range []int{1, 3} {
		var nodes []testNode
		for range count {
			nodes = append(nodes, openNode(t, redis.url()))
		}
		made, _ := create(t, nodes[0].Store, Spec{Name: fmt.Sprint(count), Limits: Limits{Requests: ptr(int64(limit)), Period: ptr(Period(period))}})
		for _, n := range nodes {
			eventually(t, "the key is known", func() bool { _, err := n.Get(made.ID); return err == nil })
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*period+period/2)
		var a admissions
		a.drive(ctx, nodes, made.ID)
		cancel()
		if most := a.most(period); most > limit {
			t.Errorf("%d nodes: %d admissions in a period, the limit is %d", count, most, limit)
		}
		least := 5 * limit * 95 / 100
		if len(a.at) < least {
			t.Errorf("%d nodes: %d admissions in five periods and a half, less than %d: %v", count, len(a.at), least, a.per)
		}
		t.Logf("%d nodes: %d in 5.5 periods, most %d, %v", count, len(a.at), a.most(period), a.per)
	}
}

var _ = bytes.Clone
var _ = os.Getenv
var _ = filepath.Join
