package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// doubleDashes gives long flags that are written with one dash a second one: -config F, which the
// standard library's flag package takes, becomes --config F. Values of flags stay as they are.
func doubleDashes(root *cobra.Command, args []string) []string {
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		return args // from a shell that completes a line; the line may end anywhere
	}
	all := make([]string, 0, len(args))
	at := root
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(all, args[i:]...)
		}
		if len(arg) < 2 || arg[0] != '-' {
			at = next(at, arg)
			all = append(all, arg)
			continue
		}
		name, _, hasValue := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		if arg[1] != '-' && len(name) > 1 {
			arg = "-" + arg
		}
		all = append(all, arg)
		if flag := at.Flag(name); flag != nil && flag.NoOptDefVal == "" && !hasValue && i+1 < len(args) {
			i++
			all = append(all, args[i])
		}
	}
	return all
}

// next is the command that word names in at, or else at.
func next(at *cobra.Command, word string) *cobra.Command {
	for _, c := range at.Commands() {
		if c.Name() == word || c.HasAlias(word) {
			return c
		}
	}
	return at
}

// misuseError is a wrong command line: one line, which says where to read on.
type misuseError struct{ text string }

func (e *misuseError) Error() string { return e.text }

func misuse(cmd *cobra.Command, format string, args ...any) error {
	text, see := fmt.Sprintf(format, args...), "; see"
	if strings.HasSuffix(text, "?") {
		see = " See"
	}
	return &misuseError{fmt.Sprintf("%s %s%s %s --help", cmd.CommandPath(), text, see, cmd.CommandPath())}
}

// takes has a command take least to most words, which what describes.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, words []string) error {
		switch {
		case slices.Contains(words, "") && most > 0:
			return misuse(cmd, "takes %s, not an empty word", what)
		case len(words) >= least && len(words) <= most:
			return nil
		case most == 0:
			return unknownWord(cmd, words[0])
		}
		return misuse(cmd, "takes %s", what)
	}
}

// completeFile completes the name of a file, for a command that takes one.
func completeFile(_ *cobra.Command, words []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(words) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// mostTypos is by how many letters a word may differ from the one that was meant.
const mostTypos = 2

// unknownWord is the error for a word that a command does not take, most likely a mistyped command.
func unknownWord(cmd *cobra.Command, word string) error {
	if !cmd.HasAvailableSubCommands() {
		return misuse(cmd, "takes no %q", word)
	}
	cmd.SuggestionsMinimumDistance = mostTypos
	return misuse(cmd, "has no command %q%s", word, didYouMean("", cmd.SuggestionsFor(word)))
}

// wantedOf says what a flag of a type takes, where the library's own error speaks of parsing.
var wantedOf = map[string]string{
	"bool":     "must be true or false",
	"boolfunc": "must be true or false",
	"int":      "must be a whole number",
	"float64":  "must be a number",
	"duration": "must be a duration such as 500ms or 2s",
}

func wrongFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	var lacks *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			return misuse(cmd, "has no flag -%s", name)
		}
		return misuse(cmd, "has no flag --%s%s", name, didYouMean("--", similarFlags(cmd, name)))
	case errors.As(err, &invalid):
		flag := invalid.GetFlag()
		why := cmp.Or(wantedOf[flag.Value.Type()], invalid.Unwrap().Error())
		return misuse(cmd, "cannot take %q for --%s: %s", invalid.GetValue(), flag.Name, why)
	case errors.As(err, &lacks):
		return misuse(cmd, "needs a value for --%s", lacks.GetSpecifiedName())
	}
	return misuse(cmd, "cannot read its flags: %v", err)
}

// similarFlags are cmd's flags that are spelled much like name. Cobra knows only commands that are
// similar, so the flags are put to it as commands.
func similarFlags(cmd *cobra.Command, name string) []string {
	names := &cobra.Command{SuggestionsMinimumDistance: mostTypos}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	return names.SuggestionsFor(name)
}

func didYouMean(prefix string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "; did you mean " + prefix + strings.Join(names, ", "+prefix) + "?"
}
