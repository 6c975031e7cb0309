package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/mock"
)

// shell runs a command of the program and returns what it prints.
func shell(t testing.TB, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := sluice(t, args...)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestTheReaderOfStderrLeaves: the process goes on serving, and counts the lines that it could not
// write.
func TestTheReaderOfStderrLeaves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := beginIn(t, dir, settings(dir, provider(t, &mock.Provider{Chunks: 1}), "access_log: true"))
	n.stderr.Close()
	secret := n.key(`{"name":"x"}`)
	for range 3 {
		if status, body := n.call("POST", n.data+"/v1/chat/completions", secret, `{"model":"demo"}`); status != 200 {
			t.Errorf("%d %s", status, body)
		}
	}
	_ = n.signal(syscall.SIGHUP) // it logs the reload
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, metrics := n.call("GET", n.admin+"/metrics", adminToken, "")
		if strings.Contains(metrics, "\nsluice_access_log_dropped_total 3\n") && !strings.Contains(metrics, "\nsluice_log_dropped_total 0\n") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("lines that were not written are not counted:\n%s", strings.Join(series(metrics, `(?m)^(sluice_\w*log_dropped_total .*)$`), "\n"))
		}
	}
	if err := n.stop(); err != nil {
		t.Error(err)
	}
}

// TestProcessOneIsNotReplaced: in a container, whose processes all end with process 1.
func TestProcessOneIsNotReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, settings(dir, "http://127.0.0.1:1/v1", ""))
	cmd := sluice(t, "-config", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
	probe := exec.Command("true")
	probe.SysProcAttr = cmd.SysProcAttr
	if err := probe.Run(); errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.ENOSPC) {
		t.Skip("a namespace of processes cannot be made here: ", err)
	}
	n := beginWith(t, cmd)
	_ = n.signal(syscall.SIGUSR2)
	n.says("SIGUSR2 is refused")
	n.says("this is process 1")
	if status, body := n.call("GET", n.admin+"/readyz", "", ""); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if err := n.stop(); err != nil {
		t.Error(err)
	}
}

// TestMockEndsWithItsTerminal: only a process that serves takes SIGHUP for something else.
func TestMockEndsWithItsTerminal(t *testing.T) {
	t.Parallel()
	cmd := sluice(t, "mock", "-listen", "127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() }).Stop()
	lines := bufio.NewScanner(stderr)
	if !lines.Scan() || !strings.Contains(lines.Text(), "listens on 127.0.0.1:") {
		t.Fatalf("it said %q", lines.Text())
	}
	_ = cmd.Process.Signal(syscall.SIGHUP)
	_ = cmd.Wait()
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() == syscall.SIGKILL {
		t.Error("SIGHUP did not end it")
	}
}

// TestKilledAfterTheAnswer: a key whose 201 was read is there after kill -9.
func TestKilledAfterTheAnswer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, settings(dir, "http://127.0.0.1:1/v1", ""))
	for round := range 3 {
		n := beginAt(t, path)
		n.key(fmt.Sprintf(`{"name":"round %d"}`, round))
		n.kill()
	}
	n := beginAt(t, path)
	if _, body := n.call("GET", n.admin+"/api/keys", adminToken, ""); strings.Count(body, `"id":"key_`) != 3 {
		t.Errorf("%s", body)
	}
	// And a second process on the same file is told so.
	if out, err := sluice(t, "-config", path).CombinedOutput(); err == nil || !bytes.Contains(out, []byte("in use by another process")) {
		t.Errorf("%v %s", err, out)
	}
}

// TestSignals: SIGTERM ends the process with 0; a second one ends it at once.
func TestSignals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	hang := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) { _, _ = io.Copy(io.Discard, conn); conn.Close() })
	write(t, path, settings(dir, "http://"+hang.Address(), ""))
	if err := beginAt(t, path).stop(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}

	write(t, path, strings.Replace(settings(dir, "http://"+hang.Address(), ""), "listen: 127.0.0.1:0", "listen: "+freePort(t), 1))
	n := beginAt(t, path)
	key := n.key(`{"name":"x"}`)
	_, body := n.call("GET", n.admin+"/api/config", adminToken, "")
	var status struct{ Config struct{ Listen string } }
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", status.Config.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 16\r\n\r\n{\"model\":\"demo\"}", key)
	within(t, 10*time.Second, "the request is upstream", func() bool { return len(hang.Requests()) > 0 })
	_ = n.signal(syscall.SIGTERM)
	for code := 200; code != 503; {
		code, _ = n.call("GET", n.admin+"/readyz", "", "")
	}
	if err := n.stop(); err == nil {
		t.Error("a second SIGTERM let it end in peace")
	}
}

// TestPipeForAConfiguration: a named pipe in the file's place is told, and holds no signal up.
func TestPipeForAConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, settings(dir, "http://127.0.0.1:1/v1", ""))
	n := beginAt(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = n.signal(syscall.SIGHUP)
	within(t, 10*time.Second, "the pipe is told", func() bool {
		_, body := n.call("GET", n.admin+"/api/config", adminToken, "")
		return strings.Contains(body, "config.yaml is a named pipe")
	})
	_ = n.signal(syscall.SIGTERM)
	select {
	case <-n.ended:
		if n.err != nil {
			t.Errorf("after SIGTERM: %v", n.err)
		}
	case <-time.After(10 * time.Second):
		t.Error("SIGTERM does not end it")
	}
}
