package keys

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func still() time.Duration { return 0 }

func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path, still)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func bolt(s *Store) *bbolt.DB { return s.kept.(*boltFile).db }

func create(t testing.TB, s *Store, spec Spec) (*Spec, string) {
	t.Helper()
	made, secret, err := s.Create(spec)
	if err != nil {
		t.Fatal(err)
	}
	return made, secret
}

func ptr[T any](v T) *T { return &v }

func TestKeySurvivesRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "keys.db")
	s := open(t, path)
	expires := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	made, secret := create(t, s, Spec{Name: "team", ExpiresAt: &expires, Models: []string{"a", "b"},
		Limits: Limits{Requests: ptr(int64(5)), Concurrent: ptr(int64(2))}})
	if len(secret) != secretLength || !strings.HasPrefix(secret, made.Prefix) || len(made.Prefix) >= len(secret)/2 {
		t.Errorf("secret of %d characters, prefix %q", len(secret), made.Prefix)
	}
	if s.Lookup([]byte(secret)) == nil {
		t.Fatal("the key is unknown right after it was made")
	}
	s.Close()
	if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, []byte(secret)) || bytes.Contains(b, []byte(secret[shownLength:])) {
		t.Errorf("the file holds the secret (%v)", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	s = open(t, path)
	k := s.Lookup([]byte(secret))
	if k == nil {
		t.Fatal("the key is gone after a restart")
	}
	if diff := cmp.Diff(made, k.Spec()); diff != "" {
		t.Errorf("-made +loaded\n%s", diff)
	}
	if got := time.Duration(*k.Spec().Limits.Period); got != time.Minute {
		t.Errorf("period is %v", got)
	}
}

func TestLookupRefuses(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	_, secret := create(t, s, Spec{Name: "x"})
	for _, wrong := range []string{"", "sk-sluice-", secret[:len(secret)-1], secret + "x", "x" + secret[1:],
		secret[:len(secret)-1] + "_", strings.ToUpper(secret)} {
		if wrong != secret && s.Lookup([]byte(wrong)) != nil {
			t.Errorf("%q is taken for a key", wrong)
		}
	}
}

func TestRotateAndDelete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	made, first := create(t, s, Spec{Name: "x", Limits: Limits{Requests: ptr(int64(2))}})
	admit(s.Lookup([]byte(first)))
	spec, second, err := s.Rotate(made.ID)
	if err != nil || spec.ID != made.ID || second == first {
		t.Fatalf("%+v, %v", spec, err)
	}
	if s.Lookup([]byte(first)) != nil {
		t.Error("the old secret still works")
	}
	k := s.Lookup([]byte(second))
	if k == nil {
		t.Fatal("the new secret does not work")
	}
	if left, _ := left(k, "requests"); left.Remaining != 1 {
		t.Errorf("rotating gave requests back: %+v", left)
	}
	if err := s.Delete(made.ID); err != nil {
		t.Fatal(err)
	}
	if s.Lookup([]byte(second)) != nil {
		t.Error("a revoked key still works")
	}
	if err := s.Delete(made.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleting twice: %v", err)
	}
	if _, _, err := s.Rotate(made.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("rotating a revoked key: %v", err)
	}
	s.Close()
	if s = open(t, path); s.Count() != 0 {
		t.Error("a revoked key is back after a restart")
	}
}

func TestUpdateKeepsWhatIsCounted(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	made, secret := create(t, s, Spec{Name: "x", Limits: Limits{Requests: ptr(int64(3))}})
	k := s.Lookup([]byte(secret))
	admit(k)
	admit(k)
	update := func(requests int64, period time.Duration) {
		t.Helper()
		if _, err := s.Update(made.ID, func(spec *Spec) error {
			spec.Limits.Requests, spec.Limits.Period = &requests, ptr(Period(period))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	wantLeft := func(want int64) {
		t.Helper()
		if got, _ := left(k, "requests"); got.Remaining != want {
			t.Errorf("%d left, want %d", got.Remaining, want)
		}
	}
	wantLeft(1)
	update(10, time.Minute)
	wantLeft(8)
	update(5, time.Hour)
	wantLeft(3)
	update(1, time.Second)
	wantLeft(0)
}

func TestUpdateRefusesAndChangesNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	made, secret := create(t, s, Spec{Name: "x", Models: []string{"a", "b"}, Limits: Limits{Requests: ptr(int64(5)), Period: ptr(DefaultPeriod), Concurrent: ptr(int64(2))}})
	want := made.clone()
	tests := []struct {
		field  string
		change func(*Spec)
	}{
		{"name", func(s *Spec) { s.Name = " " }},
		{"name", func(s *Spec) { s.Models[0], s.Name = "evil", "" }},
		{"limits.period", func(s *Spec) { *s.Limits.Requests, *s.Limits.Concurrent, *s.Limits.Period = 999, 77, 0 }},
		{"name", func(s *Spec) { s.Name = strings.Repeat("x", 201) }},
		{"models", func(s *Spec) { s.Models = []string{} }},
		{"models", func(s *Spec) { s.Models = []string{"a", ""} }},
		{"limits.requests", func(s *Spec) { s.Limits.Requests = ptr(int64(0)) }},
		{"limits.requests", func(s *Spec) { s.Limits.Requests = ptr(int64(2e9)) }},
		{"limits.period", func(s *Spec) { s.Limits = Limits{Period: ptr(DefaultPeriod)} }},
		{"limits.period", func(s *Spec) { s.Limits = Limits{Requests: ptr(int64(1)), Period: ptr(Period(time.Millisecond))} }},
		{"limits.period", func(s *Spec) { s.Limits = Limits{Requests: ptr(int64(1)), Period: ptr(Period(25 * time.Hour))} }},
		{"limits.concurrent", func(s *Spec) { s.Limits.Concurrent = ptr(int64(-1)) }},
	}
	for _, test := range tests {
		_, err := s.Update(made.ID, func(spec *Spec) error { test.change(spec); return nil })
		var bad *FieldError
		if !errors.As(err, &bad) || bad.Field != test.field {
			t.Errorf("want a finding on %s, got %v", test.field, err)
		}
		if diff := cmp.Diff(&want, s.Lookup([]byte(secret)).Spec()); diff != "" {
			t.Fatalf("changed all the same: %s", diff)
		}
	}
}

func TestStates(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	now := time.Now()
	past, future := now.Add(-time.Second), now.Add(time.Hour)
	for _, spec := range []Spec{{}, {ExpiresAt: &future}, {Disabled: true}, {Disabled: true, ExpiresAt: &past}, {ExpiresAt: &past}} {
		spec.Name = "x"
		create(t, s, spec)
	}
	if diff := cmp.Diff(map[string]int{"active": 2, "disabled": 2, "expired": 1}, s.States(now)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestUsable(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		spec Spec
		want bool
	}{
		{Spec{}, true}, {Spec{Disabled: true}, false}, {Spec{ExpiresAt: &now}, false}, {Spec{ExpiresAt: ptr(now.Add(1))}, true},
	} {
		if got := test.spec.Usable(now); got != test.want {
			t.Errorf("%+v: %v", test.spec, got)
		}
	}
}

func TestList(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	var want []string
	for range 5 {
		made, _ := create(t, s, Spec{Name: "x"})
		want = append(want, made.ID)
	}
	var got []string
	after := ""
	for pages := 1; ; pages++ {
		keys, more := s.List(2, after)
		for _, k := range keys {
			after = k.Spec().ID
			got = append(got, after)
		}
		if !more {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
	}
	slices.Sort(want) // those made in one millisecond
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestStoreGivenUp: what was known is known, changes wait for its return.
func TestStoreGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	made, secret := create(t, s, Spec{Name: "x"})
	if err := s.GiveUp(); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Create(Spec{Name: "y"})
	_, uerr := s.Update(made.ID, func(s *Spec) error { s.Name = "z"; return nil })
	if !errors.Is(err, ErrUnavailable) || !errors.Is(uerr, ErrUnavailable) || !errors.Is(s.Delete(made.ID), ErrUnavailable) {
		t.Errorf("%v, %v", err, uerr)
	}
	if k := s.Lookup([]byte(secret)); k == nil || k.Spec().Name != "x" {
		t.Error("the key has gone, or has changed")
	}
	if keys, _ := s.List(10, ""); len(keys) != 1 {
		t.Errorf("%d keys", len(keys))
	}
	if err := s.TakeBack(); err != nil {
		t.Fatal(err)
	}
	create(t, s, Spec{Name: "y"})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := open(t, path).Count(); n != 2 {
		t.Errorf("%d keys", n)
	}
}

func TestSecondProcessIsTold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	open(t, path)
	// bbolt locks the open file, so a second Open stands for a second process.
	_, err := Open(path, still)
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got %v", err)
	}
}

func TestDamagedFileIsRefusedAndLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	for range 300 {
		// Not through Create, which would wait for the disk each time.
		spec := Spec{ID: newID(time.Now()), Name: "x"}
		if err := spec.check(); err != nil {
			t.Fatal(err)
		}
		bolt(s).NoSync = true
		if err := s.put(&spec, Hash{}, 0); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	half := len(good) / 2
	tests := map[string][]byte{
		"empty":           {},
		"cut in half":     good[:half],
		"cut to a page":   good[:4096],
		"text":            []byte(strings.Repeat("this is not a key store\n", 1000)),
		"zeros":           make([]byte, len(good)),
		"zeroed middle":   append(append(bytes.Clone(good[:8192]), make([]byte, half)...), good[8192+half:]...),
		"a broken record": bytes.Replace(good, []byte(`"name":"x"`), []byte(`"name":x""`), 1),
		"an unknown hash": bytes.ReplaceAll(good, []byte(`"hash":"00`), []byte(`"hash":"zz`)),
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.db") // a panic inside bbolt leaves its lock behind
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(path, still)
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), "is damaged") || !strings.Contains(err.Error(), "put a backup in its place") {
				t.Errorf("the message does not say what to do: %v", err)
			}
			if left, _ := os.ReadFile(path); !bytes.Equal(left, content) {
				t.Error("the file was written to")
			}
		})
	}
}

func TestWhatIsNoFileIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, still); err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("%v", err)
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o755 {
		t.Errorf("the folder's mode became %v", info.Mode())
	}
}

// TestStartedTwiceAtOnce: on a missing store one gets it and the other is told.
func TestStartedTwiceAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.db")
	results := make(chan error, 2)
	stores := make(chan *Store, 2)
	for range 2 {
		go func() {
			s, err := Open(path, still)
			if err == nil {
				stores <- s
			}
			results <- err
		}()
	}
	failed := 0
	for range 2 {
		if err := <-results; err != nil {
			failed++
			if !strings.Contains(err.Error(), "in use by another process") {
				t.Errorf("%v", err)
			}
		}
	}
	if failed != 1 {
		t.Errorf("%d of 2 failed", failed)
	}
	for len(stores) > 0 {
		(<-stores).Close()
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".keys-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStoreOpenToOthersIsClosedToThem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	open(t, path).Close()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v", info.Mode())
	}
}

func TestReadsWhileChanging(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	bolt(s).NoSync = true
	made, secret := create(t, s, Spec{Name: "x", Limits: Limits{Requests: ptr(int64(1000)), Period: ptr(Period(time.Hour))}})
	var admitted atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				k := s.Lookup([]byte(secret))
				if k == nil {
					t.Error("the key is gone while it is changed")
					return
				}
				if admit(k) {
					admitted.Add(1)
				}
			}
		})
	}
	for i := range 50 {
		if _, err := s.Update(made.ID, func(spec *Spec) error {
			spec.Limits.Period = ptr(Period(time.Hour - time.Duration(i)*time.Second))
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	for s.Lookup([]byte(secret)) != nil && admitted.Load() < 1000 {
		if admit(s.Lookup([]byte(secret))) {
			admitted.Add(1)
		}
	}
	close(stop)
	wg.Wait()
	if admitted.Load() != 1000 {
		t.Errorf("%d admitted of 1000", admitted.Load())
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"))
	_, text := create(t, s, Spec{Name: "x", Limits: Limits{Requests: ptr(int64(1000))}})
	secret := []byte(text)
	now := time.Now()
	var r Reservation
	if n := testing.AllocsPerRun(1000, func() {
		k := s.Lookup(secret)
		if !k.Spec().Usable(now) || !k.Spec().Allows("gpt-4o") {
			t.Fatal("refused")
		}
		k.Reserve(0, use(0), &r)
		r.Settle(0, use(0))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// fill puts n keys into the file at path in one transaction each ten thousand.
func fill(t testing.TB, path string, n int) {
	t.Helper()
	s := open(t, path)
	for done := 0; done < n; {
		if err := bolt(s).Update(func(tx *bbolt.Tx) error {
			for i := 0; i < 10_000 && done < n; i, done = i+1, done+1 {
				id := newID(time.Now())
				hash := sha256.Sum256([]byte(id))
				value := fmt.Appendf(nil, `{"id":%q,"prefix":"sk-sluice-abcd","name":"x","created_at":"2026-11-22T10:00:00Z","expires_at":null,`+
					`"disabled":false,"models":["*"],"limits":{"requests":600,"period":"60s"},"hash":"%x"}`, id, hash)
				if err := tx.Bucket(bucket).Put([]byte(id), value); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
}

func FuzzLookup(f *testing.F) {
	s := open(f, filepath.Join(f.TempDir(), "keys.db"))
	_, secret := create(f, s, Spec{Name: "x"})
	f.Add([]byte(secret))
	f.Add([]byte("sk-sluice-"))
	f.Fuzz(func(t *testing.T, guess []byte) {
		if (s.Lookup(guess) != nil) != (string(guess) == secret) {
			t.Fatalf("%q", guess)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 100_000} {
		b.Run(map[int]string{1: "keys=1", 100_000: "keys=100000"}[n], func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "keys.db")
			fill(b, path, n-1)
			s := open(b, path)
			_, text := create(b, s, Spec{Name: "x"})
			secret := []byte(text)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if s.Lookup(secret) == nil {
						b.Error("unknown")
					}
				}
			})
		})
	}
}

func BenchmarkOpen100000(b *testing.B) {
	path := filepath.Join(b.TempDir(), "keys.db")
	fill(b, path, 100_000)
	for b.Loop() {
		s, err := Open(path, still)
		if err != nil || s.Count() != 100_000 {
			b.Fatal(s.Count(), err)
		}
		s.Close()
	}
}
