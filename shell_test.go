package main

import (
	"context"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"sluice/cli"
	"sluice/internal/upstreamtest"
)

// TestWrongCommandLines: each is one line that says what was meant and where to read on, and the exit
// code for a wrong command line.
func TestWrongCommandLines(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"chek", `sluice has no command "chek"; did you mean check? See sluice --help`},
		{"frobnicate", `sluice has no command "frobnicate"; see sluice --help`},
		{"-nope", "sluice has no flag --nope; see sluice --help"},
		{"-confg x", "sluice has no flag --confg; did you mean --config? See sluice --help"},
		{"-config", "sluice needs a value for --config; see sluice --help"},
		{"check a b", "sluice check takes one file; see sluice check --help"},
		{"check -config a b", "sluice check takes one file, not both b and --config; see sluice check --help"},
		{"mock extra", `sluice mock takes no "extra"; see sluice mock --help`},
		{"mock -chunks 0", "sluice mock needs --chunks of at least 1, and --failure-rate from 0 to 1; see sluice mock --help"},
		{"mock -delay soon", `sluice mock cannot take "soon" for --delay: must be a duration such as 500ms or 2s; see sluice mock --help`},
		{"keys", "sluice keys needs a command: create, export, import, list, revoke, rotate, show, update; see sluice keys --help"},
		{"keys shw", `sluice keys has no command "shw"; did you mean show? See sluice keys --help`},
		{"keys frobnicate", `sluice keys has no command "frobnicate"; see sluice keys --help`},
		{"keys show", "sluice keys show takes the id of one key; see sluice keys show --help"},
		{"keys show a b", "sluice keys show takes the id of one key; see sluice keys show --help"},
		{"keys list x", `sluice keys list takes no "x"; see sluice keys list --help`},
		{"keys list -name x", "sluice keys list has no flag --name; see sluice keys list --help"},
		{"keys create -nam x", "sluice keys create has no flag --nam; did you mean --name? See sluice keys create --help"},
		{"keys create --requests many", `sluice keys create cannot take "many" for --requests: must be a whole number, or none; see sluice keys create --help`},
		{"keys create -disabled=maybe", `sluice keys create cannot take "maybe" for --disabled: must be true or false; see sluice keys create --help`},
		{"keys update k", "sluice keys update has nothing to change; see sluice keys update --help"},
		{"upstreams drain", "sluice upstreams drain takes the name of one upstream, or UPSTREAM/TARGET; see sluice upstreams drain --help"},
		{"upstreams dran up", `sluice upstreams has no command "dran"; did you mean drain? See sluice upstreams --help`},
		{"status x", `sluice status takes no "x"; see sluice status --help`},
		{"status -x", "sluice status has no flag -x; see sluice status --help"},
		{"completion", "sluice completion takes the name of one shell: bash, zsh, fish, powershell; see sluice completion --help"},
		{"completion tcsh", `sluice completion knows bash, zsh, fish, powershell, not "tcsh"; see sluice completion --help`},
		{"help keys mint", `sluice keys has no command "mint"; did you mean list? See sluice keys --help`},
	} {
		var out upstreamtest.Buffer
		err := run(context.Background(), strings.Fields(test.line), &out, &out, nil, nil)
		if err == nil || err.Error() != test.want || cli.ExitCode(err) != 2 || out.String() != "" {
			t.Errorf("sluice %s: exit code %d\n got %v\nwant %s\n%s", test.line, cli.ExitCode(err), err, test.want, &out)
		}
	}
}

// everyCommand calls f with each command that help lists.
func everyCommand(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			everyCommand(sub, f)
		}
	}
}

// TestHelp: every command says what it is for, in the width of any terminal, and docs/shell.md has it.
func TestHelp(t *testing.T) {
	manual := read(t, "docs/shell.md")
	commands := 0
	everyCommand((&cli.Program{}).Root(), func(cmd *cobra.Command) {
		commands++
		words := strings.Fields(cmd.CommandPath())[1:]
		var out upstreamtest.Buffer
		if err := run(context.Background(), append([]string{"help"}, words...), &out, &out, nil, nil); err != nil {
			t.Errorf("%q: %v", words, err)
		}
		help := out.String()
		if !strings.HasPrefix(help, "usage:\n  "+cmd.CommandPath()) || cmd.Short == "" {
			t.Errorf("the help of %q:\n%s", words, help)
		}
		for line := range strings.Lines(help) {
			if width := len([]rune(strings.TrimRight(line, "\n"))); width > 80 {
				t.Errorf("the help of %q has a line of %d characters: %s", words, width, line)
			}
		}
		var again upstreamtest.Buffer
		if err := run(context.Background(), append(words, "-h"), &again, &again, nil, nil); err != nil || again.String() != help {
			t.Errorf("%q -h: %v\n%s", words, err, &again)
		}
		if !strings.Contains(manual, "`"+cmd.CommandPath()) {
			t.Errorf("docs/shell.md does not have %s", cmd.CommandPath())
		}
	})
	if commands < 18 {
		t.Errorf("%d commands", commands)
	}
}

// TestCompletion: the scripts are ones that their shells take, and know the commands.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for shell, check := range map[string]string{"bash": "bash -n", "zsh": "zsh -n", "fish": "fish -n", "powershell": ""} {
		var out upstreamtest.Buffer
		if err := run(context.Background(), []string{"completion", shell}, &out, &out, nil, nil); err != nil || !strings.Contains(out.String(), "sluice") {
			t.Errorf("%s: %v", shell, err)
		}
		if words := strings.Fields(check); len(words) > 0 {
			if _, err := exec.LookPath(words[0]); err == nil {
				cmd := exec.Command(words[0], words[1:]...)
				cmd.Stdin = strings.NewReader(out.String())
				if text, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v %s", shell, err, text)
				}
			}
		}
	}
	for line, want := range map[string]string{"keys cr": "create\t", "keys create --na": "--name\t", "compl": "completion\t", "help ke": "keys"} {
		var out upstreamtest.Buffer
		if err := run(context.Background(), append([]string{"__complete"}, strings.Split(line, " ")...), &out, &out, nil, nil); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v\n%s", line, err, &out)
		}
	}
}

// TestEverySpellingInTheTree: what README, docs, and deploy tell people to type, and what units, images
// and manifests run, are commands with flags that they have, whether these are spelled with one dash or two.
func TestEverySpellingInTheTree(t *testing.T) {
	spelled := map[string]bool{}
	for _, root := range []string{"README.md", "docs", "deploy", "e2e", ".ci"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, ".png") {
				return err
			}
			for _, m := range regexp.MustCompile("(?m)(?:^|[ `(./])sluice((?: (?:-{1,2}[a-z][a-z-]*(?:[ =](?:\"[^\"]*\"|[^ \n`|&>-][^ \n`|&>)…]*))?|[a-z]+))+)").FindAllStringSubmatch(read(t, path), -1) {
				if strings.Contains(m[1], " -") {
					spelled[strings.TrimSpace(m[1])] = true
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, list := range []string{`-config /etc/sluice/config.yaml`, `mock -listen :8081`, `status`} { // as lists, in the image, Compose and Kubernetes
		spelled[list] = true
	}
	known := 0
	for line := range spelled {
		words := regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(line, -1)
		if _, _, err := (&cli.Program{}).Root().Find(words); err != nil {
			continue // words of a sentence
		}
		known++
		var out upstreamtest.Buffer
		if err := run(context.Background(), append(words, "--help"), &out, &out, nil, nil); err != nil {
			t.Errorf("sluice %s: %v", line, err)
		}
	}
	if known < 12 {
		t.Errorf("%d command lines were found: %v", known, spelled)
	}
}
