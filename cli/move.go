package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// export prints every key, as import takes it.
func export(ctx context.Context, admin *client, to io.Writer) error {
	answer, err := admin.call(ctx, "GET", "/api/export", nil)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to, "%s\n", answer)
	return err
}

// importBatch is how many keys are sent at a time.
const importBatch = 500

// take sends what export has printed: a file's content, or the standard input's.
func take(ctx context.Context, admin *client, files []string, to io.Writer) error {
	from := os.Stdin
	if len(files) > 0 {
		f, err := os.Open(files[0])
		if err != nil {
			return fmt.Errorf("cannot read what to import: %w", err)
		}
		defer f.Close()
		from = f
	}
	var all struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(from).Decode(&all); err != nil || all.Keys == nil {
		return errors.New("what to import is not what sluice keys export prints")
	}
	type done struct{ Added, Known int }
	var sum done
	for batch := range slices.Chunk(all.Keys, importBatch) {
		got, err := into[done](ctx, admin, "POST", "/api/import", map[string]any{"keys": batch})
		if err != nil {
			return fmt.Errorf("%d keys were added, %d were there already; then: %w", sum.Added, sum.Known, err)
		}
		sum.Added += got.Added
		sum.Known += got.Known
	}
	_, err := fmt.Fprintf(to, "%d keys were added, %d were there already\n", sum.Added, sum.Known)
	return err
}
