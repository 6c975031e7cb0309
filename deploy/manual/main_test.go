package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestManual: a page for each command, a script for each shell.
func TestManual(t *testing.T) {
	dir := t.TempDir()
	if err := write([]string{dir, "v1", "2026-11-26"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"man/sluice.1", "man/sluice-keys-create.1", "man/sluice-demo.1", "completions/sluice.bash", "completions/_sluice",
		"completions/sluice.fish", "completions/sluice.ps1"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), "sluice") {
			t.Errorf("%s: %v", name, err)
		}
	}
	page, _ := os.ReadFile(filepath.Join(dir, "man", "sluice.1"))
	if !strings.Contains(string(page), "sluice v1") || !strings.Contains(string(page), "Nov 2026") {
		t.Errorf("%.200s", page)
	}
	if write([]string{dir}) == nil || write([]string{dir, "v1", "today"}) == nil {
		t.Error("it takes anything")
	}
}
