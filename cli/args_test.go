package cli

import (
	"slices"
	"strings"
	"testing"
)

// TestOneDashOrTwo: a long flag with one dash is the flag with two, and nothing else changes.
func TestOneDashOrTwo(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", ""},
		{"-config F", "--config F"},
		{"--config F", "--config F"},
		{"-config=F", "--config=F"},
		{"check -config F", "check --config F"},
		{"-config F check", "--config F check"},
		{"-config -json", "--config -json"},
		{"keys create -name -x-", "keys create --name -x-"},
		{"keys create -name -json -json", "keys create --name -json --json"},
		{"keys create --json -name x -disabled=false -force", "keys create --json --name x --disabled=false --force"},
		{"keys update -requests none k -expires none", "keys update --requests none k --expires none"},
		{"keys import -", "keys import -"},
		{"keys show -- -id", "keys show -- -id"},
		{"mock -listen :8081 -chunks 5 -chunk-delay 1ms", "mock --listen :8081 --chunks 5 --chunk-delay 1ms"},
		{"status -json", "status --json"},
		{"-h", "-h"},
		{"-help", "--help"},
		{"-version", "--version"},
		{"keys -h", "keys -h"},
		{"-nope x", "--nope x"},
		{"__complete keys -na", "__complete keys -na"},
	} {
		program := Program{Version: "x"}
		root := program.Root()
		root.InitDefaultHelpFlag()
		root.InitDefaultVersionFlag()
		if got := doubleDashes(root, strings.Fields(test.args)); !slices.Equal(got, strings.Fields(test.want)) {
			t.Errorf("%s: %q, want %s", test.args, got, test.want)
		}
	}
}
