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

// maxExport bounds what is read to be imported: about half a million keys.
const maxExport = 256 << 20

// take sends what export has printed: a file's content, or the standard input's.
func take(ctx context.Context, admin *client, files []string, to io.Writer) error {
	text, err := readExport(ctx, files)
	if err != nil {
		return fmt.Errorf("cannot read what to import: %w", err)
	}
	var all struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(text, &all) != nil || all.Keys == nil {
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
	_, err = fmt.Fprintf(to, "%d keys were added, %d were there already\n", sum.Added, sum.Known)
	return err
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
