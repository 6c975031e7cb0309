// Command manual writes sluice's man pages and completion scripts into a folder. A release has them;
// the program itself does without what makes them.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra/doc"

	"sluice/cli"
)

func main() {
	if err := write(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// write takes the folder, the version, and the day that the pages show, as 2026-11-26.
func write(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: manual FOLDER VERSION DAY")
	}
	folder, version := args[0], args[1]
	day, err := time.Parse(time.DateOnly, args[2])
	if err != nil {
		return err
	}
	for _, sub := range []string{"man", "completions"} {
		if err := os.MkdirAll(filepath.Join(folder, sub), 0o755); err != nil {
			return err
		}
	}
	root := (&cli.Program{Version: version}).Root()
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "1", Date: &day, Source: "sluice " + version, Manual: "sluice"}
	if err := doc.GenManTree(root, header, filepath.Join(folder, "man")); err != nil {
		return err
	}
	for shell, name := range map[string]string{"bash": "sluice.bash", "zsh": "_sluice", "fish": "sluice.fish", "powershell": "sluice.ps1"} {
		var script bytes.Buffer
		p := &cli.Program{Stdout: &script, Stderr: os.Stderr}
		if err := p.Run(context.Background(), []string{"completion", shell}); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, "completions", name), script.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
