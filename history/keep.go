package history

import (
	"bytes"
	"crypto/sha256"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// What is kept over a restart: a line that says what it is, the SHA-256 of the rest, and the series of
// the tiers above the first, as gob.
const (
	keptHead = "sluice series 1\n"
	maxKept  = 64 << 20
)

type keptFile struct {
	Series []keptSeries
	Marks  []Mark
}

type keptSeries struct {
	By          By
	Name, Label string
	Tiers       [][]Point
}

// Save writes the file. A failure is logged: the series go on without it.
func (b *Book) Save() {
	if b.parts.Path == "" {
		return
	}
	if err := b.save(); err != nil {
		b.parts.Log.Warn("the series of the admin page cannot be kept for the next start", "file", b.parts.Path, "error", err)
	}
}

func (b *Book) save() error {
	b.saving.Lock()
	defer b.saving.Unlock()
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(b.kept(time.Now())); err != nil {
		return err
	}
	sum := sha256.Sum256(body.Bytes())
	aside := b.parts.Path + ".tmp"
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(append([]byte(keptHead), sum[:]...), body.Bytes()...))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(aside, b.parts.Path)
}

// kept is what is to be written at now. A step that is not over yet is written as it is.
func (b *Book) kept(now time.Time) *keptFile {
	b.mu.Lock()
	defer b.mu.Unlock()
	file := &keptFile{Marks: append([]Mark(nil), b.marks...)}
	for by := range b.tables {
		for _, t := range b.tables[by].tracks {
			t.roll(now)
			s := keptSeries{By: By(by), Name: t.name, Label: t.label}
			for i := 1; i < len(t.tiers); i++ {
				points := append([]Point(nil), t.tiers[i].points...)
				if t.tiers[i].open.used {
					points = append(points, t.tiers[i].open.point())
				}
				s.Tiers = append(s.Tiers, points)
			}
			file.Series = append(file.Series, s)
		}
	}
	return file
}

func (b *Book) load() {
	if b.parts.Path == "" {
		return
	}
	file, err := readKept(b.parts.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		b.parts.Log.Warn("the series of the admin page begin anew: their file cannot be read", "file", b.parts.Path, "error", err)
		return
	}
	now := time.Now()
	for i := range file.Series {
		b.take(&file.Series[i], now)
	}
	b.marks = file.Marks[max(0, len(file.Marks)-maxMarks):]
}

func readKept(path string) (*keptFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxKept {
		return nil, errors.Join(fmt.Errorf("it is not a regular file of at most %d bytes", maxKept), err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKept))
	if err != nil {
		return nil, err
	}
	rest, is := bytes.CutPrefix(text, []byte(keptHead))
	if !is || len(rest) < sha256.Size {
		return nil, errors.New("it is not one of these files")
	}
	body := rest[sha256.Size:]
	if sha256.Sum256(body) != [sha256.Size]byte(rest[:sha256.Size]) {
		return nil, errors.New("its content was changed or cut")
	}
	var file keptFile
	err = gob.NewDecoder(bytes.NewReader(body)).Decode(&file)
	return &file, err
}

// take has a series that was kept go on, as far as it fits.
func (b *Book) take(s *keptSeries, now time.Time) {
	if s.By >= kinds || len(s.Tiers) != len(shapes)-1 {
		return
	}
	tb := &b.tables[s.By]
	if len(tb.tracks) >= tb.most || tb.tracks[s.Name] != nil {
		return
	}
	t := &track{name: s.Name, label: s.Label, seen: now.Add(-idleLong)}
	for i, points := range s.Tiers {
		shape, before := shapes[i+1], uint32(0)
		for _, p := range points {
			if p.Step >= before && p.Step <= stepAt(shape, now) {
				t.tiers[i+1].keep(shape, p)
				before = p.Step
			}
		}
	}
	t.roll(now)
	if !t.empty() {
		tb.tracks[s.Name] = t
	}
}
