// Package e2e has the tests that drive the program as its users do: as a process, over the network, with
// its files, from a browser. It is a module of its own, so that what only these tests need is no
// dependency of the program.
package e2e

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/internal/upstreamtest"
)

// programVersion is the version that the program is built with.
const programVersion = "v0.0.0-e2e"

// programFolder has the built program while the tests run.
var programFolder string

func TestMain(m *testing.M) {
	err := os.Chdir("..") // the tests name the tree's files as its root does
	if err == nil {
		programFolder, err = os.MkdirTemp("", "sluice-e2e-")
	}
	if err == nil {
		err = flag.Set("test.parallel", "6") // parallel tests wait for processes; they need no processor each
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, append(othersGoroutines, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(programFolder)
		os.Exit(code)
	}))...)
}

// othersGoroutines are those that libraries leave behind.
var othersGoroutines = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
	goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
}

// built is the program, built once and as these tests are: with the race detector or without.
var built = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programFolder, "sluice")
	args := []string{"build", "-ldflags", "-w -X main.release=" + programVersion, "-o", path}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("the program does not build: %w\n%s", err, out)
	}
	return path, nil
})

// programPath is the file of the built program.
func programPath(t testing.TB) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// sluice is a command of the program.
func sluice(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(programPath(t), args...)
	cmd.Env = programEnv()
	return cmd
}

// programEnv is the environment of a process of the program. The race detector would sleep at each end.
func programEnv() []string { return append(newcomersEnv(), "GORACE=atexit_sleep_ms=0") }

// newcomersEnv is this process's environment without what is ours. What is built in a copy of the tree is built as the
// image is (TestDockerfile), so that it is compiled once and not in each copy anew; .ci/demo builds as a newcomer does.
func newcomersEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SLUICE_") })
	return append(env, "CGO_ENABLED=0", "GOFLAGS="+os.Getenv("GOFLAGS")+" -trimpath")
}

const adminToken = "0123456789abcdef"

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

// node is a process that serves.
type node struct {
	t           testing.TB
	data, admin string // base URLs
	path        string // of its configuration
	cmd         *exec.Cmd
	log         upstreamtest.Buffer // what it writes to stderr
	stderr      io.Closer           // where the log is read from
	ended       chan struct{}       // closed when it has ended
	err         error               // with which, after ended
}

// begin runs the program with a provider at base.
func begin(t testing.TB, base, more string) *node {
	t.Helper()
	dir := t.TempDir()
	return beginIn(t, dir, settings(dir, base, more))
}

// beginIn runs the program on a configuration that it writes to dir.
func beginIn(t testing.TB, dir, text string) *node {
	t.Helper()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, text)
	return beginAt(t, path)
}

// beginAt runs the program on a configuration.
func beginAt(t testing.TB, path string) *node {
	t.Helper()
	n := beginWith(t, sluice(t, "-config", path))
	n.path = path
	return n
}

// beginWith starts a process of the program, which ends with the test, and returns once it serves.
func beginWith(t testing.TB, cmd *exec.Cmd) *node {
	t.Helper()
	n := &node{t: t, cmd: cmd, ended: make(chan struct{})}
	says, mouth, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr, n.stderr = mouth, says
	err = cmd.Start()
	mouth.Close()
	if err != nil {
		t.Fatal(err)
	}
	serves := make(chan struct{})
	go n.read(says, serves)
	t.Cleanup(n.end)
	select {
	case <-serves:
	case <-n.ended:
		t.Fatalf("it ended before it served: %v\n%s", n.err, &n.log)
	}
	return n
}

// read keeps the log, and closes serves when that says where the node serves.
func (n *node) read(says io.Reader, serves chan<- struct{}) {
	defer close(n.ended)
	for lines := bufio.NewReader(says); ; {
		line, err := lines.ReadString('\n')
		_, _ = io.WriteString(&n.log, line)
		var said struct{ Msg, Listen, Admin string }
		if n.data == "" && json.Unmarshal([]byte(line), &said) == nil && said.Msg == "sluice serves" {
			n.data, n.admin = "http://"+said.Listen, "http://"+said.Admin
			close(serves)
		}
		if err != nil { // it has ended, or the test reads no more
			n.err = n.cmd.Wait()
			return
		}
	}
}

// end ends the process with its test: well, if it still runs.
func (n *node) end() {
	http.DefaultClient.CloseIdleConnections()
	running := n.signal(syscall.SIGTERM) == nil
	late := time.AfterFunc(time.Minute, func() { _ = n.cmd.Process.Kill() })
	<-n.ended
	late.Stop()
	n.stderr.Close()
	if running && n.err != nil {
		n.t.Errorf("it ended with %v\n%s", n.err, &n.log)
	}
	wantNoRace(n.t, n.log.String())
}

// wantNoRace fails for what the race detector has written to a log.
func wantNoRace(t testing.TB, log string) {
	t.Helper()
	if _, race, found := strings.Cut(log, "WARNING: DATA RACE"); found {
		t.Errorf("a data race: %s", race)
	}
}

func (n *node) signal(s os.Signal) error { return n.cmd.Process.Signal(s) }

// stop ends the process as SIGTERM does, and returns what it ended with.
func (n *node) stop() error {
	n.t.Helper()
	if err := n.signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	<-n.ended
	return n.err
}

// kill ends the process as kill -9 does.
func (n *node) kill() {
	_ = n.cmd.Process.Kill()
	<-n.ended
}

// says waits until the log has text.
func (n *node) says(text string) {
	n.t.Helper()
	within(n.t, 10*time.Second, "the log says "+text, func() bool { return strings.Contains(n.log.String(), text) })
}

// freePort is an address that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func within(t testing.TB, d time.Duration, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", d, what)
		}
	}
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

// series are the parts of text that pattern's first group finds.
func series(text, pattern string) (names []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}
