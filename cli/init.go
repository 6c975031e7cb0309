package cli

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sluice/config"
)

// tokenFile is where init and demo keep the admin token, under their folder.
const tokenFile = "admin.token"

func (p *Program) init() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "init [FILE]",
		Short: "write a configuration for the providers whose keys are set",
		Long: "Write a short configuration, " + defaultConfig + " if no other file is named, for the\n" +
			"providers whose keys are in the environment, and say what to do next. It looks\nfor\n" +
			wrap(variableNames(), helpWidth-2) + "Without any of them the configuration has the model demo, which sluice mock\nserves.",
		Args:              takes(0, 1, "one file"),
		ValidArgsFunction: completeFile,
		RunE: func(cmd *cobra.Command, files []string) error {
			file := defaultConfig
			if len(files) > 0 {
				file = files[0]
			}
			return p.initialize(cmd, file, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that is there")
	return cmd
}

// wrap indents text by two and breaks it after commas.
func wrap(text string, width int) string {
	var b strings.Builder
	line := " "
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}

func (p *Program) initialize(cmd *cobra.Command, file string, force bool) error {
	if _, err := os.Lstat(file); err == nil && !force {
		return fmt.Errorf("%s is there already and was not changed; sluice init --force replaces it, sluice check %s looks at it", file, file)
	}
	if _, err := os.Stat(filepath.Dir(file)); err != nil {
		return fmt.Errorf("cannot write %s into a folder that is not there: %w", file, err)
	}
	with := found()
	demo := len(with) == 0
	if demo {
		with = []provider{demoProvider}
	}
	token, made, err := adminToken(filepath.Dir(file))
	if err != nil {
		return err
	}
	if err := writeNew(file, startConfig(token, "data/keys.db", with), force); err != nil {
		return fmt.Errorf("cannot write the configuration: %w", err)
	}
	if _, _, err := config.Load(cmd.Context(), file); err != nil {
		return fmt.Errorf("%s was written, but sluice would not serve it: %w", file, err)
	}
	_, err = fmt.Fprint(cmd.OutOrStdout(), nextSteps(cmp.Or(p.Name, "sluice"), file, made, demo, with))
	return err
}

// adminToken is how a configuration in folder gets its admin token: from the environment if it is
// there, else from a file, which is made if it is not there. made is that file's name, "" for none.
func adminToken(folder string) (reference, made string, err error) {
	if os.Getenv("SLUICE_ADMIN_TOKEN") != "" {
		return "${SLUICE_ADMIN_TOKEN}", "", nil
	}
	const inFolder = "data/" + tokenFile
	at := filepath.Join(folder, inFolder)
	if err := os.Mkdir(filepath.Dir(at), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", "", fmt.Errorf("cannot keep the admin token: %w", err)
	}
	if err := writeNew(at, rand.Text()+"\n", false); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", "", fmt.Errorf("cannot keep the admin token: %w", err)
	}
	return "${file:" + inFolder + "}", at, nil
}

// writeNew writes a file that only its owner may read. One that is there stays, or is replaced whole.
func writeNew(path, text string, replace bool) error {
	if !replace {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		return errors.Join(err, f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".sluice-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// nextSteps are what to read and to paste after init.
func nextSteps(program, file, token string, demo bool, with []provider) string {
	var b strings.Builder
	if demo {
		fmt.Fprintf(&b, "No provider's key is in the environment: %s has the model demo alone, which sluice\n"+
			"mock serves. Looked for:\n%s", file, wrap(variableNames(), helpWidth-2))
	} else {
		fmt.Fprintf(&b, "%s serves:\n", file)
		for _, p := range with {
			for _, m := range p.models {
				fmt.Fprintf(&b, "  %s, with %s\n", m.name, p.variables[0])
			}
		}
	}
	if token != "" {
		fmt.Fprintf(&b, "The admin token is in %s.\n", token)
	}
	argument, flag := "", ""
	if file != defaultConfig {
		argument, flag = " "+file, " --config "+file
	}
	fmt.Fprintf(&b, "\nCheck and serve it:\n\n  %s check%s\n", program, argument)
	if demo {
		fmt.Fprintf(&b, "  %s mock &\n", program)
	}
	fmt.Fprintf(&b, "  %[1]s%[2]s\n\nIn another shell make a key, and ask:\n\n"+
		"  key=$(%[1]s keys create%[2]s --name me --json | sed 's/.*\"key\":\"\\([^\"]*\\)\".*/\\1/')\n  %[3]s\n", program, flag, firstRequest(with[0]))
	return b.String()
}

// firstRequest asks the provider's first model.
func firstRequest(p provider) string {
	path, header, more := "chat/completions", `-H "Authorization: Bearer $key"`, ""
	if p.messages {
		path, header, more = "messages", `-H "x-api-key: $key"`, `"max_tokens":100,`
	}
	return fmt.Sprintf(`curl -s http://127.0.0.1:8080/v1/%s %s -H "Content-Type: application/json" -d '{"model":"%s",%s"messages":[{"role":"user","content":"Hello"}]}'`,
		path, header, p.models[0].name, more)
}
