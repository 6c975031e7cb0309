package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"
)

func (r *remote) exportKeys() *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "print all keys as JSON: hashes and limits, no secret",
		Args:  takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			everything := *r
			everything.asJSON = true
			_, err := everything.ask(cmd, "GET", "/api/export", nil)
			return err
		},
	}
}

func (r *remote) importKeys() *cobra.Command {
	return &cobra.Command{
		Use:   "import [FILE]",
		Short: "take what another gateway has exported",
		Long:  "Take the keys that another gateway has exported, from a file or from the\nstandard input. A key that is there already stays as it is.",
		Args:  takes(0, 1, "one file"),

		ValidArgsFunction: completeFile,
		RunE: func(cmd *cobra.Command, files []string) error {
			admin, err := r.client(cmd.Context())
			if err != nil {
				return err
			}
			sum, err := take(cmd.Context(), admin, files)
			switch {
			case err != nil:
				return err
			case r.asJSON:
				return printJSON(cmd, sum)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), sum)
			return err
		},
	}
}

// importBatch is how many keys are sent at a time.
const importBatch = 500

// maxExport bounds what is read to be imported: about half a million keys.
const maxExport = 256 << 20

// imported counts the keys of an import.
type imported struct {
	Added int `json:"added"`
	Known int `json:"known"`
}

func (i imported) String() string {
	return fmt.Sprintf("%d keys were added, %d were there already", i.Added, i.Known)
}

// take sends what export has printed: a file's content, or the standard input's.
func take(ctx context.Context, admin *client, files []string) (sum imported, err error) {
	text, err := readExport(ctx, files)
	if err != nil {
		return sum, fmt.Errorf("cannot read what to import: %w", err)
	}
	var all struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(text, &all) != nil || all.Keys == nil {
		return sum, errors.New("what to import is not what sluice keys export prints")
	}
	for batch := range slices.Chunk(all.Keys, importBatch) {
		got, err := into[imported](ctx, admin, "POST", "/api/import", map[string]any{"keys": batch})
		if err != nil {
			return sum, fmt.Errorf("%v; then: %w", sum, err)
		}
		sum.Added += got.Added
		sum.Known += got.Known
	}
	return sum, nil
}

// readExport reads the file, or the standard input. A pipe will do too, as in a shell's <(…); if
// nothing comes out of it, the end of ctx ends the wait, and the process ends the goroutine.
func readExport(ctx context.Context, files []string) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := readInput(files)
		done <- result{text, err}
	}()
	select {
	case got := <-done:
		return got.text, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func readInput(files []string) ([]byte, error) {
	from := os.Stdin
	if len(files) > 0 {
		info, err := os.Stat(files[0])
		if err != nil {
			return nil, err
		}
		if info.IsDir() || info.Mode()&fs.ModeDevice != 0 {
			return nil, fmt.Errorf("%s must be a file or a pipe", files[0])
		}
		f, err := os.Open(files[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxExport+1))
	if err == nil && len(text) > maxExport {
		err = fmt.Errorf("%s is larger than %d MiB; import it in parts", from.Name(), maxExport>>20)
	}
	return text, err
}
