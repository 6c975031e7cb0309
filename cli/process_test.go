package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

// builtIn is the folder that built has made.
var builtIn string

// built is the program, built once for the tests that run it.
var built = sync.OnceValues(func() (program string, err error) {
	if builtIn, err = os.MkdirTemp("", "sluice"); err != nil {
		return "", err
	}
	program = filepath.Join(builtIn, "sluice")
	if out, err := exec.Command("go", "build", "-o", program, "sluice").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return program, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if builtIn != "" {
		os.RemoveAll(builtIn)
	}
	os.Exit(code)
}

// gateway is the built program's demo: a gateway and its provider.
type gateway struct {
	t                *testing.T
	program, dir     string
	data, admin, key string
	cmd              *exec.Cmd
}

func startDemo(t *testing.T) *gateway {
	t.Helper()
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, program: program, dir: t.TempDir()}
	g.start("0")
	return g
}

// start starts it, with its admin port where it was.
func (g *gateway) start(adminPort string) {
	g.t.Helper()
	g.cmd = exec.Command(g.program, "demo", "--data", g.dir, "--port", "0", "--admin-port", adminPort)
	g.cmd.Env = append(os.Environ(), "SLUICE_ADMIN_TOKEN=")
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	stdout, err := g.cmd.StdoutPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(g.stop)
	deadline := time.AfterFunc(30*time.Second, func() { _ = g.cmd.Process.Kill() })
	defer deadline.Stop()
	var line struct{ Msg, Listen, Admin string }
	for log := bufio.NewScanner(stderr); line.Msg != "sluice serves"; {
		if !log.Scan() {
			g.t.Fatal("the gateway ended before it served")
		}
		_ = json.Unmarshal(log.Bytes(), &line)
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	g.data, g.admin = "http://"+line.Listen, "http://"+line.Admin
	for said := bufio.NewScanner(stdout); !strings.Contains(said.Text(), "curl "); { // its keys are there
		if !said.Scan() {
			g.t.Fatal("the demo does not say what to do with it")
		}
	}
	key, err := os.ReadFile(filepath.Join(g.dir, "dev.key"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.key = strings.TrimSpace(string(key))
}

func (g *gateway) stop() {
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	_ = g.cmd.Wait()
}

// ask sends a request for a model.
func (g *gateway) ask(model string) {
	g.t.Helper()
	req, _ := http.NewRequest("POST", g.data+"/v1/chat/completions", strings.NewReader(`{"model":"`+model+`"}`))
	req.Header.Set("Authorization", "Bearer "+g.key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

// words are a command line against it.
func (g *gateway) words(args ...string) []string {
	return append(args, "--admin", g.admin, "--token-file", filepath.Join(g.dir, "admin.token"))
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what func() string, holds func() bool) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("it did not come to this:\n%s", what())
		}
	}
}

// TestTailOfAGateway: the program follows another one over its restart, and ends with Ctrl-C.
func TestTailOfAGateway(t *testing.T) {
	t.Parallel()
	g := startDemo(t)
	var out, notes upstreamtest.Buffer
	cmd := exec.Command(g.program, g.words("tail")...)
	cmd.Stdout, cmd.Stderr = &out, &notes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() }).Stop()
	has := func(text string) func() bool {
		return func() bool {
			g.ask("demo") // it may not follow yet
			return strings.Contains(out.String(), text)
		}
	}
	said := func() string { return out.String() + notes.String() }
	eventually(t, said, has("demo → demo               development"))
	g.ask("nobody's")
	eventually(t, said, has("caller_unknown_model"))
	g.stop()
	g.start(g.admin[strings.LastIndexByte(g.admin, ':')+1:])
	eventually(t, said, func() bool { return strings.Contains(notes.String(), "connected again") })
	before := out.String()
	eventually(t, said, func() bool { g.ask("demo"); return len(out.String()) > len(before) })
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, said())
	}
	if strings.Contains(out.String(), "TIME") || strings.Contains(out.String(), "\x1b") {
		t.Errorf("titles or colours where there is no terminal:\n%s", &out)
	}
}

// TestTailIntoHead: the reader that leaves ends it, without a word.
func TestTailIntoHead(t *testing.T) {
	t.Parallel()
	g := startDemo(t)
	var notes, first bytes.Buffer
	tail, head := exec.Command(g.program, g.words("tail", "--json")...), exec.Command("head", "-n1")
	pipe, err := tail.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	tail.Stderr, head.Stdin, head.Stdout = &notes, pipe, &first
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(time.Minute, func() { _ = tail.Process.Kill() }).Stop()
	if err := head.Start(); err != nil {
		t.Fatal(err)
	}
	pipe.Close() // head alone has it
	ended := make(chan error, 1)
	go func() { ended <- tail.Wait() }()
	eventually(t, notes.String, func() bool {
		g.ask("demo")
		select {
		case err := <-ended:
			ended <- err
			return true
		default:
			return false
		}
	})
	err = <-ended
	state := tail.ProcessState.Sys().(syscall.WaitStatus)
	if err != nil && state.Signal() != syscall.SIGPIPE || notes.String() != "" {
		t.Errorf("%v: %s", err, &notes)
	}
	if err := head.Wait(); err != nil || !json.Valid(first.Bytes()) {
		t.Errorf("%v: %s", err, &first)
	}
}
