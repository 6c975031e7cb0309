package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"sluice/config"
)

// serve is the command serve, and what sluice does without a command.
func (p *Program) serve(name string) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   name,
		Short: "run the gateway; what sluice does without a command",
		Long: `Serve the configuration in a file, which is followed while it changes. SIGHUP
reloads it, SIGUSR2 has another process take over, SIGTERM ends the process when
what is in flight has ended, and a second SIGTERM ends it at once.`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lacksDefault(cmd, file); err != nil {
				return err
			}
			return p.Serve(cmd.Context(), file)
		},
	}
	bindConfig(cmd, &file)
	return cmd
}

// lacksDefault is the error where no file was named and the one that goes without saying is not there.
func lacksDefault(cmd *cobra.Command, file string) error {
	if cmd.Flags().Changed("config") || cmd.Flags().NArg() > 0 {
		return nil
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("there is no configuration: no %s in this folder. sluice init writes one for the providers "+
		"whose keys are in the environment, sluice demo needs none, sluice --config FILE serves another", file)
}

func bindConfig(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", defaultConfig, "configuration `FILE`")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
}

func (p *Program) check() *cobra.Command {
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "say what is wrong with a configuration",
		Long: "Say what is wrong with a configuration: every finding with its line and column.\n" +
			"The exit code is 0 if sluice would serve it, else 1.",
		Args:              takes(0, 1, "one file"),
		ValidArgsFunction: completeFile,
		RunE: func(cmd *cobra.Command, files []string) error {
			if len(files) > 0 {
				if cmd.Flags().Changed("config") {
					return misuse(cmd, "takes one file, not both %s and --config", files[0])
				}
				file = files[0]
			}
			err := lacksDefault(cmd, file)
			var cfg *config.Config
			if err == nil {
				cfg, _, err = config.Load(cmd.Context(), file)
			}
			if asJSON {
				return errors.Join(printJSON(cmd, checked(file, cfg, err)), err)
			}
			if err != nil {
				return err
			}
			for _, warning := range cfg.Warnings() {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+warning)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), file+": ok")
			return err
		},
	}
	bindConfig(cmd, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for other programs")
	return cmd
}

// finding is a config.Finding as check --json prints it.
type finding struct {
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
}

func checked(file string, cfg *config.Config, err error) any {
	findings, warnings := []finding{}, []string{}
	var bad *config.Error
	switch {
	case errors.As(err, &bad):
		for _, f := range bad.Findings {
			findings = append(findings, finding(f))
		}
	case err != nil:
		findings = append(findings, finding{Message: err.Error()})
	default:
		warnings = append(warnings, cfg.Warnings()...)
	}
	return map[string]any{"file": file, "ok": err == nil, "findings": findings, "warnings": warnings}
}

func (p *Program) version() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "print the version of this program",
		Args:  takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printJSON(cmd, map[string]string{"version": p.Version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), p.Version)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for other programs")
	return cmd
}

// onlyGroups marks a command that does nothing by itself.
const onlyGroups = "groups"

// needsCommand has a command that does nothing by itself say so, in place of Cobra's page of help.
func needsCommand(cmd *cobra.Command) {
	cmd.Annotations = map[string]string{onlyGroups: ""}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		names := ""
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				names += ", " + c.Name()
			}
		}
		return misuse(cmd, "needs a command: %s", names[2:])
	}
}
