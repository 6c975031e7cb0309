package limiter

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

func join(t *testing.T, q *Queue, key any) *Waiter {
	t.Helper()
	w := NewWaiter()
	if _, ok := q.Join(w, key, 1<<30, 1<<30); !ok {
		t.Fatalf("%v is refused", key)
	}
	return w
}

func hasTurn(w *Waiter) bool { return len(w.Turn) > 0 }

// TestQueueIsFairAcrossKeys: one with a hundred waiting delays another's first by one place.
func TestQueueIsFairAcrossKeys(t *testing.T) {
	var q Queue
	q.SetLimit(1)
	if !q.Enter() || q.Enter() || !q.Full() {
		t.Fatal("a queue of one does not hold one")
	}
	var greedy []*Waiter
	for range 100 {
		greedy = append(greedy, join(t, &q, "greedy"))
	}
	b1, b2, c1 := join(t, &q, "b"), join(t, &q, "b"), join(t, &q, "c")
	for i, w := range []*Waiter{greedy[0], b1, c1, greedy[1], b2, greedy[2], greedy[3]} {
		q.Leave()
		if !hasTurn(w) {
			t.Fatalf("turn %d went to somebody else", i)
		}
		if !<-w.Turn {
			t.Fatalf("turn %d is none", i)
		}
		if q.InFlight() != 1 {
			t.Fatalf("%d inside", q.InFlight())
		}
	}
	if q.Waiting() != 96 {
		t.Errorf("%d wait", q.Waiting())
	}
	q.SetLimit(3)
	if !hasTurn(greedy[4]) || !hasTurn(greedy[5]) || hasTurn(greedy[6]) {
		t.Error("a higher limit lets in two more at once, and only those")
	}
	q.SetLimit(0)
	if !hasTurn(greedy[99]) || q.Waiting() != 0 {
		t.Error("without a limit somebody still waits")
	}
}

// TestQueueMakesRoomForWhoHasFewer: when as many wait as may.
func TestQueueMakesRoomForWhoHasFewer(t *testing.T) {
	var q Queue
	q.SetLimit(1)
	q.Enter()
	first, last := join(t, &q, "a"), join(t, &q, "a")
	b := NewWaiter()
	if ahead, ok := q.Join(b, "b", 100, 2); !ok || ahead != 1 {
		t.Fatalf("b is refused, or behind %d", ahead)
	}
	if !hasTurn(last) || <-last.Turn {
		t.Error("a's last was not sent away")
	}
	for _, key := range []string{"a", "b", "c"} {
		if _, ok := q.Join(NewWaiter(), key, 100, 2); ok {
			t.Errorf("%s is let in though nobody has more", key)
		}
	}
	if ahead, ok := q.Join(NewWaiter(), "d", 1, 100); ok || ahead != 2 {
		t.Errorf("d joins behind %d and has patience for one", ahead)
	}
	if q.Quit(first) || q.Waiting() != 1 {
		t.Error("a's first did not leave the line")
	}
	q.Leave()
	if !q.Quit(b) || q.InFlight() != 1 {
		t.Error("b had its turn, and quitting did not say so")
	}
	q.Leave()
}

// TestQueueLosesNobody: any order of entering, waiting, giving up and leaving, with never more inside
// than the limit, and nobody inside or waiting in the end.
func TestQueueLosesNobody(t *testing.T) {
	var q Queue
	q.SetLimit(4)
	var inside, most atomic.Int64
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 3))
			w := NewWaiter()
			for range 4000 {
				if !q.Enter() {
					if _, ok := q.Join(w, g%5, 1<<30, 6); !ok {
						continue
					}
					if rnd.IntN(3) == 0 {
						if !q.Quit(w) {
							continue
						}
					} else if !<-w.Turn {
						continue
					}
				}
				n := inside.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				inside.Add(-1)
				q.Leave()
			}
		})
	}
	wg.Wait()
	if most.Load() > 4 || q.InFlight() != 0 || q.Waiting() != 0 || len(q.lines) != 0 || q.next != nil {
		t.Errorf("most inside %d, left behind %d, waiting %d in %d lines", most.Load(), q.InFlight(), q.Waiting(), len(q.lines))
	}
}

func BenchmarkQueueEnterAndLeave(b *testing.B) {
	var q Queue
	q.SetLimit(1 << 20)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if q.Enter() {
				q.Leave()
			}
		}
	})
}
