package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/upstreamtest"
	"sluice/mock"
)

// lineage is a program and those that took over from it. They all write to one log.
type lineage struct {
	t     *testing.T
	node  node
	pid   int // of the newest
	lines chan string
	log   upstreamtest.Buffer
}

// found starts the program on path. cmd, if not nil, is how.
func found(t *testing.T, path string, cmd *exec.Cmd) *lineage {
	t.Helper()
	// Who outlives its parent becomes this process's child, so that its end can be awaited.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	l := &lineage{t: t, node: node{t: t}, lines: make(chan string, 10_000)}
	if cmd == nil {
		cmd = sluice(t, "-config", path)
	}
	says, mouth, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = mouth
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	mouth.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(says); lines.Scan(); {
			_, _ = io.WriteString(&l.log, lines.Text()+"\n")
			if strings.Contains(lines.Text(), `"msg":`) && !strings.Contains(lines.Text(), `"msg":"request"`) {
				l.lines <- lines.Text()
			}
		}
		close(l.lines)
	}()
	l.serves()
	t.Cleanup(func() {
		_ = syscall.Kill(l.pid, syscall.SIGKILL)
		<-read // all have ended
		says.Close()
		wantNoRace(t, l.log.String())
	})
	return l
}

// serves waits until another process serves and returns the one before.
func (l *lineage) serves() (before int) {
	l.t.Helper()
	line := l.wait("sluice serves")
	var said struct {
		Pid           int
		Listen, Admin string
	}
	if err := json.Unmarshal([]byte(line), &said); err != nil {
		l.t.Fatal(err)
	}
	before, l.pid = l.pid, said.Pid
	l.node.data, l.node.admin = "http://"+said.Listen, "http://"+said.Admin
	return before
}

// wait waits for a line of the log.
func (l *lineage) wait(part string) string {
	l.t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case line, open := <-l.lines:
			if strings.Contains(line, part) {
				return line
			}
			if !open {
				l.t.Fatalf("the log ended before %q:\n%s", part, &l.log)
			}
		case <-late:
			l.t.Fatalf("no %q in the log:\n%s", part, &l.log)
		}
	}
}

func (l *lineage) signal(s syscall.Signal) {
	l.t.Helper()
	if err := syscall.Kill(l.pid, s); err != nil {
		l.t.Fatal(err)
	}
}

// key makes a key, on a connection of its own: those that are kept end with the process, and for the
// moment at which the key store changes hands changes are answered with 503.
func (l *lineage) key(name string) string {
	l.t.Helper()
	for {
		http.DefaultClient.CloseIdleConnections()
		status, text := l.node.call("POST", l.node.admin+"/api/keys", adminToken, `{"name":"`+name+`"}`)
		var made struct{ Key string }
		switch {
		case status == 503:
			continue
		case status != 201 || json.Unmarshal([]byte(text), &made) != nil:
			l.t.Fatalf("%d %s", status, text)
		}
		return made.Key
	}
}

// ended waits for the end of a process, which must be a good one.
func (l *lineage) ended(pid int) {
	l.t.Helper()
	var status unix.WaitStatus
	for {
		switch _, err := unix.Wait4(pid, &status, 0, nil); err {
		case unix.EINTR:
		case nil:
			if status.ExitStatus() != 0 {
				l.t.Errorf("process %d: exit status %d\n%s", pid, status.ExitStatus(), &l.log)
			}
			return
		default:
			l.t.Fatal(pid, err)
		}
	}
}

// TestTakeover: ten times a process takes over from the one before, under load on connections that
// are kept. No request fails, no stream is cut, and keys made on the way work.
func TestTakeover(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	base := provider(t, &mock.Provider{Chunks: 20, ChunkDelay: 5 * time.Millisecond})
	write(t, path, settings(dir, base, "access_log: true"))
	l := found(t, path, nil)
	data, admin := l.node.data, l.node.admin
	secret := l.key("first")

	var wg sync.WaitGroup
	var stop atomic.Bool
	var plain, streamed atomic.Int64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	defer client.CloseIdleConnections()
	for i := range 16 {
		wg.Go(func() {
			for !stop.Load() {
				count, body, end := &plain, `{"model":"demo","messages":[]}`, "}"
				if i%2 == 0 {
					count, body, end = &streamed, `{"model":"demo","stream":true,"messages":[]}`, "data: [DONE]\n\n"
				}
				// What cannot be sent again by the client's transport: no GetBody.
				req, _ := http.NewRequest("POST", data+"/v1/chat/completions", io.MultiReader(strings.NewReader(body)))
				req.Header.Set("Authorization", "Bearer "+secret)
				resp, err := client.Do(req)
				if err != nil {
					t.Errorf("after %d and %d: %v", plain.Load(), streamed.Load(), err)
					return
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || !strings.HasSuffix(string(got), end) {
					t.Errorf("%d %v: %.200s", resp.StatusCode, err, got)
					return
				}
				count.Add(1)
			}
		})
	}
	for n := range 10 {
		l.signal(syscall.SIGUSR2)
		old := l.serves()
		made := l.key(fmt.Sprintf("made by process %d", n))
		l.ended(old)
		if status, text := l.node.call("POST", l.node.data+"/v1/chat/completions", made, `{"model":"demo"}`); status != 200 {
			t.Errorf("%d %s", status, text)
		}
		if l.node.data != data || l.node.admin != admin {
			t.Errorf("it serves %s and %s", l.node.data, l.node.admin)
		}
	}
	stop.Store(true)
	wg.Wait()
	if _, text := l.node.call("GET", l.node.admin+"/api/keys", adminToken, ""); strings.Count(text, `"id":`) != 11 {
		t.Errorf("%s", text)
	}
	http.DefaultClient.CloseIdleConnections()
	l.signal(syscall.SIGTERM)
	l.ended(l.pid)
	// 10 more are those made with the new keys; each answer that came has its whole line.
	want, lines := int(plain.Load()+streamed.Load())+10, 0
	for line := range strings.Lines(l.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not a JSON line: %s", line)
		}
		if strings.Contains(line, `"msg":"request"`) {
			lines++
			if !strings.Contains(line, `"status":200,`) {
				t.Errorf("%s", line)
			}
		}
	}
	if lines != want || want < 100 {
		t.Errorf("%d lines in the access log for %d requests", lines, want)
	}
	t.Logf("%d plain, %d streamed", plain.Load(), streamed.Load())
}

// TestTakeoverThatFails: the old process goes on as if nothing had been.
func TestTakeoverThatFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	good := settings(dir, provider(t, &mock.Provider{Chunks: 1}), "")
	write(t, path, good)
	l := found(t, path, nil)
	l.key("before")
	pid := l.pid
	for _, test := range []struct{ what, text, said string }{
		{"before it is loaded", "nonsense", "config not reloaded"},
		{"when the key store is given up", strings.Replace(good, filepath.Join(dir, "keys.db"), path+"/no/folder.db", 1), "config has changes that need a restart"},
	} {
		what := test.what
		write(t, path, test.text)
		l.wait(test.said)
		l.signal(syscall.SIGUSR2)
		if line := l.wait("nobody has taken over"); !strings.Contains(line, "exit status 1") {
			t.Errorf("%s: %s", what, line)
		}
		secret := l.key("after")
		if status, body := l.node.call("POST", l.node.data+"/v1/chat/completions", secret, `{"model":"demo"}`); status != 200 {
			t.Errorf("%s: %d %s", what, status, body)
		}
		write(t, path, good)
		l.wait("config reloaded")
	}
	if l.pid != pid {
		t.Error("another process serves")
	}
	// And then one that works.
	http.DefaultClient.CloseIdleConnections()
	l.signal(syscall.SIGUSR2)
	l.ended(l.serves())
	http.DefaultClient.CloseIdleConnections()
	l.signal(syscall.SIGTERM)
	l.ended(l.pid)
}

// TestSocketsOfAServiceManager: as systemd starts it, with names and without.
func TestSocketsOfAServiceManager(t *testing.T) {
	t.Parallel()
	for names, want := range map[string][2]int{"admin:data": {1, 0}, "data:admin": {0, 1}, "": {0, 1}, "sluice.socket": {0, -1}} {
		dir := t.TempDir()
		path := filepath.Join(dir, "config.yaml")
		write(t, path, settings(dir, "http://127.0.0.1:1/v1", ""))
		cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=$1 LISTEN_FDNAMES=$2 exec "$3" -config "$4"`, "sh", "2", names, programPath(t), path)
		cmd.Env = programEnv()
		var addresses [2]string
		sockets := 2
		if want[1] < 0 {
			sockets = 1
			cmd.Args[4] = "1"
		}
		for i := range sockets {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addresses[i] = "http://" + ln.Addr().String()
			f, err := ln.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			ln.Close()
			defer f.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
		l := found(t, path, cmd)
		if l.node.data != addresses[want[0]] || want[1] >= 0 && l.node.admin != addresses[want[1]] {
			t.Errorf("%q: it serves %s and %s of %v", names, l.node.data, l.node.admin, addresses)
		}
		l.signal(syscall.SIGTERM)
		l.ended(l.pid)
	}
}
