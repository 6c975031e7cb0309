package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// helpWidth is the width of a terminal that everybody has.
const helpWidth = 80

// printHelp writes what a command is for and what it takes. It is written here, and not as one of
// Cobra's templates, so that the program does without text/template.
func printHelp(cmd *cobra.Command, _ []string) {
	var b strings.Builder
	b.WriteString("usage:\n")
	if _, groups := cmd.Annotations[onlyGroups]; !groups {
		fmt.Fprintf(&b, "  %s\n", cmd.UseLine())
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s COMMAND\n", cmd.CommandPath())
	}
	fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(longText(cmd)))
	section(&b, "examples", cmd.Example)
	section(&b, "commands", commandList(cmd))
	section(&b, "flags", cmd.LocalFlags().FlagUsagesWrapped(helpWidth))
	if cmd.HasParent() {
		section(&b, "flags of every "+cmd.Parent().CommandPath()+" command", cmd.InheritedFlags().FlagUsagesWrapped(helpWidth))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n%s COMMAND --help tells more of one. Flags take one dash or two.\n", cmd.CommandPath())
	}
	_, _ = io.WriteString(cmd.OutOrStdout(), b.String()) // a reader that has left wants no help
}

func longText(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return cmd.Long
	}
	return sentence(cmd.Short)
}

// sentence makes one of a line of a list.
func sentence(line string) string { return strings.ToUpper(line[:1]) + line[1:] + "." }

func section(b *strings.Builder, name, text string) {
	if text = strings.TrimRight(text, " \n"); text != "" {
		fmt.Fprintf(b, "\n%s:\n%s\n", name, text)
	}
}

func commandList(cmd *cobra.Command) string {
	var b strings.Builder
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			fmt.Fprintf(&b, "  %-12s %s\n", c.Name(), c.Short)
		}
	}
	return b.String()
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND …]",
		Short: "say what a command does and what it takes",
		RunE: func(cmd *cobra.Command, words []string) error {
			about := cmd.Root()
			for _, word := range words {
				sub := next(about, word)
				if sub == about {
					return unknownWord(about, word)
				}
				about = sub
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, words []string, _ string) (names []string, d cobra.ShellCompDirective) {
			about := cmd.Root()
			for _, word := range words {
				about = next(about, word)
			}
			for _, c := range about.Commands() {
				if c.IsAvailableCommand() {
					names = append(names, c.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

func completion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "print a script that completes sluice's commands in a shell",
		Long:  "Print a script that completes sluice's commands in bash, zsh, fish or\npowershell.",
		Example: `  source <(sluice completion bash)
  sluice completion zsh >"${fpath[1]}/_sluice"
  sluice completion fish >~/.config/fish/completions/sluice.fish`,
		ValidArgs: shells,
		Args:      takes(1, 1, "the name of one shell: "+strings.Join(shells, ", ")),
		RunE: func(cmd *cobra.Command, words []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch words[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return misuse(cmd, "knows %s, not %q", strings.Join(shells, ", "), words[0])
		},
	}
}
