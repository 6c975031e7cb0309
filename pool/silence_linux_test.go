package pool

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/upstreamtest"
)

// vanish has conn's side of the connection ignore all that arrives, as a machine does that is gone:
// a filter drops it before TCP sees it.
func vanish(conn net.Conn) error {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	none := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	err2 := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &none})
	})
	return errors.Join(err, err2)
}

// TestAnUpstreamThatVanishes behind a warm connection loses the attempt long before the request's
// own time is over, so that another target may be asked.
func TestAnUpstreamThatVanishes(t *testing.T) {
	var mu sync.Mutex
	var last net.Conn
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		mu.Lock()
		last = conn
		mu.Unlock()
		upstreamtest.Reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")(conn, nil)
	})
	p := empty()
	defer p.Close()
	target := targetOf(t, p, "upstreams: {up: {base_url: http://"+up.Address()+"/v1}}\nmodels: {m: {targets: [{upstream: up}]}}\n")
	target.Upstream.silence = 300 * time.Millisecond
	if got, err := exchange(t, target, "x"); err != nil || got != "ok" {
		t.Fatalf("%q, %v", got, err)
	}
	mu.Lock()
	err := vanish(last)
	mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	x := Acquire()
	defer Release(x)
	defer x.Finish()
	x.Head = fmt.Appendf(nil, "POST /%sContent-Length: 0\r\n\r\n", target.Head)
	var e *Error
	if err := x.Send(target, time.Now().Add(time.Minute)); !errors.As(err, &e) || e.Cause != ConnectionLost || !errors.Is(err, errVanished) {
		t.Errorf("%v", err)
	}
}

// TestSilenceIsNoticed: the socket of an upstream's connection has the options.
func TestSilenceIsNoticed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := empty()
	defer p.Close()
	target := targetOf(t, p, "upstreams: {up: {base_url: http://"+ln.Addr().String()+"/v1}}\nmodels: {m: {targets: [{upstream: up}]}}\n")
	conn, err := target.Upstream.connect(ln.Addr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*watched).Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for option, want := range map[int]int{
		unix.TCP_USER_TIMEOUT: 20_000, unix.TCP_KEEPIDLE: 10, unix.TCP_KEEPINTVL: 5, unix.TCP_KEEPCNT: 2,
	} {
		_ = raw.Control(func(fd uintptr) {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); err != nil || got != want {
				t.Errorf("option %d is %d, %v", option, got, err)
			}
		})
	}
}
