package e2e

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

// documents are in the order in which they are read.
var documents = []string{"README.md", "docs/config.md", "docs/clients.md", "docs/limits.md", "docs/resilience.md", "docs/shell.md", "docs/operations.md",
	"docs/metrics.md", "docs/scale.md", "docs/architecture.md", "docs/security.md", "docs/performance.md"}

// blocks are a document's fenced blocks of a kind, as in ```sh.
func blocks(text, kind string) (all []string) {
	for _, m := range regexp.MustCompile("(?ms)^```"+kind+"\n(.*?)^```").FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// TestEveryCommandInTheDocs runs the blocks marked sh, those of a document in one shell, where a
// newcomer would: in a copy of the tree where "make run" runs. Blocks marked "sh elsewhere" need a
// machine of another kind; they are read for their syntax. In other blocks there are no commands.
func TestEveryCommandInTheDocs(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"make", "curl", "wrk", "promtool"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name + " is not installed")
		}
	}
	dir := copyOfTheTree(t)
	// Everything listens elsewhere than it says, for others may run here.
	ports := map[string]string{}
	for _, p := range []string{"8080", "9090", "8081", "8180", "9190"} {
		_, ports[p], _ = net.SplitHostPort(freePort(t))
	}
	elsewhere := func(text string) string {
		return regexp.MustCompile(`\b(8080|9090|8081|8180|9190)\b`).ReplaceAllStringFunc(text, func(p string) string { return ports[p] })
	}
	for _, name := range []string{"config.yaml", "bench/vegeta/attack.sh"} {
		write(t, filepath.Join(dir, name), elsewhere(read(t, name)))
	}
	makeRun(t, dir, "DEMO=-port "+ports["8080"]+" -admin-port "+ports["9090"])

	run := 0
	for _, name := range documents {
		text := read(t, name)
		for _, block := range blocks(text, "sh elsewhere") {
			if out, err := script(dir, "sh -n", block); err != nil {
				t.Errorf("%s: %v %s\n%s", name, err, out, block)
			}
		}
		commands := ""
		for _, block := range blocks(text, "sh") {
			run++
			// These run already, run this, or take long; their targets are there.
			block = regexp.MustCompile(`(?m)^make `).ReplaceAllString(elsewhere(block), "make -n ")
			commands += strings.ReplaceAll(block, "curl -s", "curl --fail-with-body -s") // an error is no answer
		}
		if out, err := script(dir, "sh -eu", commands, "SLUICE_ADMIN="+elsewhere("http://127.0.0.1:9090")); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		bare := regexp.MustCompile("(?ms)^```.*?^```").ReplaceAllString(text, "")
		if m := regexp.MustCompile(`(?m)^    (make|curl|go|sh|export|docker|kubectl|systemctl|\./\S*|SLUICE_\S*) .*`).FindString(bare); m != "" {
			t.Errorf("%s: a command that nothing runs: %s", name, m)
		}
	}
	if run < 10 {
		t.Errorf("%d blocks were run", run)
	}
}

// script runs a script in dir.
func script(dir, how, text string, env ...string) (string, error) {
	words := strings.Fields(how)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(text)
	cmd.Env = append(newcomersEnv(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// copyOfTheTree leaves out what git does, and git's own.
func copyOfTheTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == ".git" && !d.IsDir(): // of a worktree; SkipDir would skip what follows
			return nil
		case slices.Contains([]string{".git", "data", "dist"}, path):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(dir, path), 0o755)
		case path == "sluice" || path == "bench/bench" || !d.Type().IsRegular():
			return nil
		}
		from, err := os.Open(path)
		if err != nil {
			return err
		}
		defer from.Close()
		to, err := os.Create(filepath.Join(dir, path))
		if err != nil {
			return err
		}
		_, err = io.Copy(to, from)
		if cerr := to.Close(); err == nil {
			err = cerr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// makeRun runs "make run" in dir until the test ends.
func makeRun(t *testing.T, dir, variable string) {
	t.Helper()
	var out upstreamtest.Buffer
	cmd := exec.Command("make", "run", variable)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	cmd.Env = newcomersEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		<-ended
	})
	for deadline := time.Now().Add(2 * time.Minute); !strings.Contains(out.String(), "\ncurl -sN "); time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("make run ended: %v\n%s", err, &out)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("make run printed no curl line\n%s", &out)
		}
	}
}

// TestWhatTheDocsName: links lead somewhere, make's targets and sluice's commands are there, and the
// documents lead from one to the next.
func TestWhatTheDocsName(t *testing.T) {
	t.Parallel()
	commands := map[string]string{} // and a document that names it
	makefile := read(t, "Makefile")
	for i, name := range append(slices.Clone(documents), "CHANGELOG.md", "bench/results/README.md") {
		text := read(t, name)
		for _, link := range series(text, `\]\(([^)#]+)[^)]*\)`) {
			if strings.HasPrefix(link, "https://") {
				continue // of others
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), link)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, target := range series(text, "`make ([a-z0-9-]+)[^`]*`") {
			if !strings.Contains(makefile, "\n"+target+":") {
				t.Errorf("%s: make has no %s", name, target)
			}
		}
		for _, command := range series(text, "`(?:\\./)?sluice ([a-z]+)[^`]*`") {
			commands[command] = name
		}
		if next := fmt.Sprintf("](%s).\n", filepath.Base(documents[min(i+1, len(documents)-1)])); i > 0 && i+1 < len(documents) && !strings.HasSuffix(text, next) {
			t.Errorf("%s does not lead to the next", name)
		}
	}
	for command, name := range commands {
		if out, err := shell(t, nil, "help", command); err != nil {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// TestCostsInTheReadme: each figure is that of the report.
func TestCostsInTheReadme(t *testing.T) {
	report, readme := read(t, "bench/results/README.md"), read(t, "README.md")
	day := series(report, `(?m)^# A run of the bench, (\S+)`)[0]
	if !strings.Contains(readme, "the run of "+day+"]") {
		t.Errorf("the report is of %s", day)
	}
	for scenario, row := range map[string]string{"chat-300": "a chat request of 300 B", "chat-1m": "a chat request of 1 MB",
		"stream-full": "an event of a stream at full speed", "stream-10ms": "an event every 10 ms"} {
		ratio := series(report, `(?s)\n## `+scenario+`\n.*?\n\| sluice \| [^|]+ \| [^|]+ \| ([0-9.]+) `)[0]
		if !strings.Contains(readme, "| "+row+" | "+ratio+" |\n") {
			t.Errorf("%s: the report has %s", scenario, ratio)
		}
	}
	for _, proxy := range []string{"sluice", "nginx"} {
		cpu, _ := strconv.ParseFloat(series(report, `(?s)\n## chat-300\n.*?\n\| `+proxy+` \| [^|]+ \| ([0-9.]+) `)[0], 64)
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^\| \[?%s\b.* \| %.0f µs \|$`, proxy, cpu)).MatchString(readme) {
			t.Errorf("%s takes %.2f µs", proxy, cpu)
		}
	}
}

// TestScale: what docs/scale.md shows is what its program prints.
func TestScale(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "run", "-C", "bench", "./scale").Output()
	if err != nil {
		t.Fatal(err)
	}
	text := read(t, "docs/scale.md")
	rows := 0
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "| ") {
			rows++
			if !strings.Contains(text, line) {
				t.Errorf("not in docs/scale.md: %s", line)
			}
		}
	}
	if rows < 10 {
		t.Errorf("%d rows", rows)
	}
}
