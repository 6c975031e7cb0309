package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// terminal is a real one: a window of tmux, with a shell in it.
type terminal struct {
	t      *testing.T
	socket string
}

func openTerminal(t *testing.T, env ...string) *terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("tmux is not installed: what a terminal shows is not tested")
	}
	dir, err := os.MkdirTemp("", "tmux") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t, filepath.Join(dir, "s")}
	t.Cleanup(func() {
		_, _ = term.command("kill-server").CombinedOutput()
		os.RemoveAll(dir)
	})
	cmd := term.command("new-session", "-d", "-x", "120", "-y", "30", "sh")
	cmd.Env = append(append(os.Environ(), "LC_ALL=C.UTF-8", "PS1=$ ", "TMUX=", "ENV=", "NO_COLOR="), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tmux: %v %s", err, out)
	}
	return term
}

func (term *terminal) command(args ...string) *exec.Cmd {
	return exec.Command("tmux", append([]string{"-u", "-f", "/dev/null", "-S", term.socket}, args...)...)
}

func (term *terminal) do(args ...string) string {
	term.t.Helper()
	out, err := term.command(args...).CombinedOutput()
	if err != nil {
		term.t.Fatalf("tmux %q: %v %s", args, err, out)
	}
	return string(out)
}

func (term *terminal) screen() string { return term.do("capture-pane", "-p") }

// press types keys, as tmux names them.
func (term *terminal) press(keys ...string) {
	term.t.Helper()
	term.do(append([]string{"send-keys"}, keys...)...)
}

// shows waits until all parts are on the screen.
func (term *terminal) shows(parts ...string) {
	term.t.Helper()
	eventually(term.t, term.screen, func() bool {
		screen := "\n" + term.screen()
		for _, part := range parts {
			if !strings.Contains(screen, part) {
				return false
			}
		}
		return true
	})
}

// TestTopInATerminal: numbers of requests, keys, a terminal of another size, and the shell afterwards.
func TestTopInATerminal(t *testing.T) {
	t.Parallel()
	term := openTerminal(t)
	g := startDemo(t)
	for range 3 {
		g.ask("demo")
	}
	g.ask("nobody's")
	line := strings.Join(append([]string{g.program}, g.words("top", "--every", "500ms")...), " ")
	term.press(line, "Enter")
	term.shows("[1 models]", "MODEL", "REQ/S ▼", "takes traffic", "closed", "in flight: 0", "q: end")
	term.press("<") // by name
	term.shows("MODEL ▲")
	term.press("Right", "Right")
	term.shows("P50 ▼")
	term.press("2")
	term.shows("[2 upstreams]", "UPSTREAM", "ATTEMPTS/S ▼")
	term.press("Tab")
	term.shows("[3 keys]", "KEY", "development", "REFUSED", "active")
	term.do("resize-window", "-x", "80", "-y", "20")
	eventually(t, term.screen, func() bool {
		screen := term.screen()
		return strings.Contains(screen, "[3 keys]") && strings.Contains(screen, "q: end") && !strings.Contains(screen, "REFUSED")
	})
	term.do("resize-window", "-x", "120", "-y", "30")
	term.shows("REFUSED")
	for _, key := range []string{"q", "C-c"} {
		term.press(key)
		// The shell's own line shows what is typed, and the screen of before is back.
		eventually(t, term.screen, func() bool { return !strings.Contains(term.screen(), "q: end") })
		term.press("clear; echo it ended with $?", "Enter")
		term.shows("\nit ended with 0\n")
		if flags := term.do("display-message", "-p", "#{alternate_on} #{cursor_flag} #{keypad_flag} #{mouse_any_flag}"); flags != "0 1 0 0\n" {
			t.Errorf("after %s the terminal is not as it was: %s", key, flags)
		}
		if key == "q" {
			term.press(line, "Enter")
			term.shows("REQ/S ▼", "takes traffic")
		}
	}
}

// TestTopWithoutATerminal: a pipe has no screen.
func TestTopWithoutATerminal(t *testing.T) {
	t.Parallel()
	term := openTerminal(t)
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	term.press(program+" top | cat; TERM=dumb "+program+" top; echo it ended with $?", "Enter")
	term.shows("sluice top needs a terminal", "it ended with 2")
}

// TestTailInATerminal has titles and colours.
func TestTailInATerminal(t *testing.T) {
	t.Parallel()
	term := openTerminal(t)
	g := startDemo(t)
	term.press("clear; "+strings.Join(append([]string{g.program}, g.words("tail")...), " "), "Enter")
	term.shows("MODEL → UPSTREAM")
	eventually(t, term.screen, func() bool {
		g.ask("demo")
		return strings.Contains(term.do("capture-pane", "-pe"), "\x1b[32m200")
	})
	term.press("C-c")
	term.press("echo it ended with $?", "Enter")
	term.shows("it ended with 0\n")
}
