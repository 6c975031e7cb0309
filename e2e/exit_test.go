package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestExitCodes of the program as a process.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "good.yaml"), settings(dir, "http://127.0.0.1:1/v1", ""))
	write(t, filepath.Join(dir, "bad.yaml"), "lissten: x\n")
	for _, test := range []struct {
		line   string
		code   int
		stdout string // begins so
		stderr string
	}{
		{"--version", 0, "sluice version " + programVersion + "\n", ""},
		{"version", 0, programVersion + "\n", ""},
		{"version -json", 0, `{"arch":`, ""},
		{"--help", 0, "usage:\n  sluice [flags]\n", ""},
		{"help keys", 0, "usage:\n  sluice keys COMMAND\n", ""},
		{"keys create -h", 0, "usage:\n  sluice keys create [flags]\n", ""},
		{"check good.yaml", 0, "good.yaml: ok\n", ""},
		{"check -config good.yaml -json", 0, `{"file":"good.yaml","findings":[],"ok":true,"warnings":[]}`, ""},
		{"check bad.yaml", 1, "", "bad.yaml:1:1: "},
		{"check bad.yaml -json", 1, `{"file":"bad.yaml","findings":[{"line":1,"column":1,`, "bad.yaml:1:1: "},
		{"check none.yaml --json", 1, `{"file":"none.yaml","findings":[{"message":"cannot read config: `, "cannot read config"},
		{"keys list -admin http://127.0.0.1:1 -token-file good.yaml", 1, "", "cannot reach the admin port"},
		{"keys lst", 2, "", "sluice keys has no command"},
		{"", 1, "", "there is no configuration: no config.yaml in this folder. sluice init writes one for the providers whose keys " +
			"are in the environment, sluice demo needs none, sluice --config FILE serves another\n"},
	} {
		cmd := sluice(t, strings.Fields(test.line)...)
		var stdout, stderr strings.Builder
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
		_ = cmd.Run()
		if cmd.ProcessState.ExitCode() != test.code || !strings.HasPrefix(stdout.String(), test.stdout) ||
			!strings.HasPrefix(stderr.String(), test.stderr) || (test.stderr == "") != (stderr.String() == "") {
			t.Errorf("sluice %s: exit code %d\n%s\n%s", test.line, cmd.ProcessState.ExitCode(), &stdout, &stderr)
		}
	}
}
