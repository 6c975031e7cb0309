// Package shared lets several nodes keep keys together in Redis, or what speaks as it does, and
// count together what they admit. docs/scale.md tells what that promises.
//
// A node leases a part of each limit and spends it without asking. Twice a second it says that it
// lives, and hears what the other nodes have changed.
package shared

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"sluice/keys"
	"sluice/limiter"
)

const (
	// changeWait bounds a change of a key.
	changeWait = 5 * time.Second
	// countEvery is how often a node counts of how many limits it has spent something.
	countEvery = 10 * time.Second
	// batch is how many records are read at a time.
	batch = 500
)

// redis is a keys.SharedKeeper.
type redis struct {
	store  *keys.Store
	now    func() time.Duration
	client rueidis.Client
	log    *slog.Logger
	node   string // this one's id
	pace   pace
	kept   int // how many deleted keys Redis remembers

	heard
	roster roster
	strict atomic.Bool // see keys.SharedKeeper.HoldStrictly
	leases leases

	syncing  sync.Mutex    // one round of sync at a time
	seen     atomic.Uint64 // version of the keys up to which the index has all changes
	own      atomic.Uint64 // version of this node's newest change
	spenders atomic.Int64  // how many limits something was spent of lately
	counted  time.Duration // when those were counted

	wake  chan struct{} // has work begin before its time
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// Open opens a store that other nodes use too, at a redis:// or rediss:// URL, and loads every
// key. It follows the others' changes until Close. now is the clock of the keys' limits.
func Open(url string, now func() time.Duration, log *slog.Logger) (*keys.Store, error) {
	r, err := openRedis(url, now, log, normalPace)
	if err != nil {
		return nil, err
	}
	return r.store, nil
}

func openRedis(url string, now func() time.Duration, log *slog.Logger, pace pace) (*redis, error) {
	client, err := connect(url)
	if err != nil {
		return nil, err
	}
	r := newRedis(now, client, log, pace)
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	opens, err := r.firstBeat(ctx)
	if err = cmp.Or(err, r.follow(ctx)); err != nil {
		stop()
		client.Close()
		return nil, fmt.Errorf("cannot load the shared key store: %w", err)
	}
	r.ended.Go(func() { r.every(ctx, nil, r.beatOnce) })
	r.ended.Go(func() { r.every(ctx, r.wake, r.work) })
	time.Sleep(min(opens, 2*pace.settle)) // in a new era only: better than to refuse for as long
	return r, nil
}

func connect(url string) (rueidis.Client, error) {
	option, err := rueidis.ParseURL(url)
	if err != nil { // it is not quoted: a password may be in it
		return nil, errors.New("cannot read keys.store: it must be a URL such as redis://host:6379/0")
	}
	option.DisableCache, option.ForceSingleClient = true, true
	option.ClientName = "sluice"
	option.Dialer.Timeout, option.ConnWriteTimeout = 2*time.Second, 2*time.Second
	client, err := rueidis.NewClient(option)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the shared key store: %w", err)
	}
	return client, nil
}

// newRedis makes a redis that has heard nothing yet, and its store.
func newRedis(now func() time.Duration, client rueidis.Client, log *slog.Logger, pace pace) *redis {
	r := &redis{now: now, client: client, log: log, node: randomID(), pace: pace, kept: keptDeleted, wake: make(chan struct{}, 1)}
	r.leases.of = r
	r.roster.left.Store(never)
	r.store = keys.OpenShared(r, now)
	return r
}

func randomID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// every does something once a beat, and whenever it is woken, until Close.
func (r *redis) every(ctx context.Context, wake <-chan struct{}, do func(context.Context)) {
	tick := time.NewTicker(r.pace.beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-tick.C:
		}
		do(ctx)
	}
}

// work does what may take longer than a beat: it follows what was heard, and gives back what
// leases have left.
func (r *redis) work(ctx context.Context) {
	if r.away.Load() {
		return
	}
	if err := r.follow(ctx); err != nil && ctx.Err() == nil {
		r.log.Warn("the shared key store does not answer as it should; trying again", "error", err)
	}
	r.leases.sweep(ctx, func(l *limiter.Lease) bool { return l.Over(r.now()) })
	if now := r.now(); now-r.counted > countEvery {
		r.counted = now
		r.spenders.Store(int64(len(r.spendings(""))))
	}
}

// Sharing implements keys.SharedKeeper.
func (r *redis) Sharing() keys.Sharing {
	return keys.Sharing{Answers: !r.away.Load(), Silent: r.now() - time.Duration(r.last.Load()),
		Nodes: r.nodes.Load(), Strict: r.strict.Load()}
}

// Close implements keys.Keeper. It gives back all leases.
func (r *redis) Close() error {
	r.stop()
	r.ended.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.leases.sweep(ctx, func(*limiter.Lease) bool { return true })
	r.leave()
	r.client.Close()
	return nil
}

// GiveUp implements keys.Keeper. Several processes may have the store.
func (r *redis) GiveUp() error { return nil }

// TakeBack implements keys.Keeper.
func (r *redis) TakeBack() error { return nil }
