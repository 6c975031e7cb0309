package upstreamtest

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Redis is a real server, on a port of its own.
type Redis struct {
	t    TB
	port string
	dir  string
	more []string
	cmd  *exec.Cmd
}

// StartRedis starts one, or skips the test where it is not installed.
// more are arguments of redis-server.
func StartRedis(t TB, more ...string) *Redis {
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
	r := &Redis{t: t, port: port, dir: memoryDir(t), more: more}
	r.Start()
	t.Cleanup(func() { r.Kill() })
	return r
}

// memoryDir returns a folder in memory where the machine has one. A file there survives the end of the
// process that wrote it, which is all that a test can bring about, and servers of parallel tests do not
// wait for each other's turn at the disk.
func memoryDir(t TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "redis-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// URL is that of its first database.
func (r *Redis) URL() string { return "redis://127.0.0.1:" + r.port + "/0" }

// Start starts it (again), with what it had. It has every change on disk before it is answered, as the docs advise.
func (r *Redis) Start() {
	r.t.Helper()
	args := []string{"--port", r.port, "--bind", "127.0.0.1", "--dir", r.dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always"}
	r.cmd = exec.Command("redis-server", append(args, r.more...)...)
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal("redis-server does not answer")
		}
		conn, err := net.Dial("tcp", "127.0.0.1:"+r.port)
		if err == nil {
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			answer := make([]byte, 7)
			_, _ = conn.Write([]byte("PING\r\n"))
			n, _ := conn.Read(answer)
			conn.Close()
			if answer := string(answer[:n]); answer == "+PONG\r\n" || strings.HasPrefix(answer, "-NOAUTH") {
				return
			}
		}
	}
}

// Kill ends it as kill -9 does.
func (r *Redis) Kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// Signal sends it a signal.
func (r *Redis) Signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// Command runs a command in it.
func (r *Redis) Command(args ...string) {
	r.t.Helper()
	if out, err := exec.Command("redis-cli", append([]string{"-p", r.port}, args...)...).CombinedOutput(); err != nil {
		r.t.Fatalf("%q: %v %s", args, err, out)
	}
}
