package keys

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
	"github.com/redis/rueidis"

	"sluice/limiter"
)

const (
	// beatEvery is how often a node says that it lives, and learns what has changed.
	beatEvery = 500 * time.Millisecond
	// beatWait is how long it waits for the answer, and leaseWait for that to a request for a lease.
	beatWait, leaseWait = 400 * time.Millisecond, 250 * time.Millisecond
	// cutOff is after how long without an answer a node takes itself for cut off: others cannot count on it,
	// and what it spends is not counted.
	cutOff = 2 * time.Second
	// settleTime is how long nodes have to say what they have spent when a new era begins.
	settleTime = 2 * time.Second
	// missedAfter is after how long the others do not count a node any more.
	missedAfter = 10 * time.Second
	// changeWait bounds a change of a key.
	changeWait = 5 * time.Second
	// countEvery is how often a node counts of how many limits it has spent something.
	countEvery = 10 * time.Second
	// batch is how many records are read at a time.
	batch = 500
)

// shared is where several nodes keep keys together, and count what they spend: Redis, or what speaks
// as it does.
type shared struct {
	store  *Store
	client rueidis.Client
	log    *slog.Logger
	node   string
	seen   atomic.Uint64 // version of the keys up to which the index has all changes
	own    atomic.Uint64 // that of this node's newest change
	kept   int           // deleted keys that Redis remembers

	lastHeard atomic.Int64 // on the store's clock
	nodes     atomic.Int64 // as last heard
	away      atomic.Bool  // Redis does not answer
	lostAt    atomic.Int64 // when that was noticed
	era       atomic.Pointer[string]
	newEra    atomic.Pointer[string] // in which it is to be said what was spent, before it is the era
	lineage   atomic.Pointer[string]
	version   atomic.Uint64 // of the keys, as last heard
	missed    atomic.Uint64 // the version that this node knew of when an older one was heard; 0 for none
	stray     atomic.Bool   // the lineage has become another
	spenders  atomic.Int64  // limits of which something was spent lately
	counted   time.Duration // when those were counted

	syncing sync.Mutex // one round of sync at a time
	leases  leases

	stop  context.CancelFunc
	ended sync.WaitGroup
}

// OpenShared opens a store that other nodes use too, at a redis:// or rediss:// URL, and loads every
// key. It follows the others' changes until Close.
func OpenShared(url string, now func() time.Duration, log *slog.Logger) (*Store, error) {
	option, err := rueidis.ParseURL(url)
	if err != nil {
		return nil, errors.New("cannot read keys.store: it must be a URL such as redis://host:6379/0") // not quoted: a password may be in it
	}
	option.DisableCache, option.ForceSingleClient = true, true
	option.ClientName = "sluice"
	option.Dialer.Timeout, option.ConnWriteTimeout = 2*time.Second, 2*time.Second
	client, err := rueidis.NewClient(option)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the shared key store: %w", err)
	}
	s := &Store{now: now, byHash: xsync.NewMap[Hash, *Key](), byID: xsync.NewMap[string, *Key]()}
	r := &shared{store: s, client: client, log: log, node: randomID(), kept: keptDeleted}
	r.leases.of = r
	s.kept, s.shared = r, r
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	opens, err := r.beat(ctx)
	if err = cmp.Or(err, r.follow(ctx)); err != nil {
		stop()
		client.Close()
		return nil, fmt.Errorf("cannot load the shared key store: %w", err)
	}
	r.ended.Go(func() { r.every(ctx, r.beatOnce) })
	r.ended.Go(func() { r.every(ctx, r.work) })
	time.Sleep(min(opens, 2*settleTime)) // only for who comes in a new era: better than to refuse so long
	return s, nil
}

func randomID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// every does something twice a second until Close.
func (r *shared) every(ctx context.Context, do func(context.Context)) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do(ctx)
		}
	}
}

func (r *shared) beatOnce(ctx context.Context) {
	if _, err := r.beat(ctx); err != nil && ctx.Err() == nil {
		r.lost(err)
	}
}

// work does what may take longer than a beat: what has been heard, and what is to be given back.
func (r *shared) work(ctx context.Context) {
	if r.away.Load() {
		return
	}
	if err := r.follow(ctx); err != nil && ctx.Err() == nil {
		r.log.Warn("the shared key store does not answer as it should; trying again", "error", err)
	}
	r.leases.sweep(ctx, func(l *limiter.Lease) bool { return l.Over(r.store.now()) })
	if now := r.store.now(); now-r.counted > countEvery {
		r.counted = now
		r.spenders.Store(int64(len(r.leases.spendings(""))))
	}
}

// lost notes that Redis does not answer.
func (r *shared) lost(err error) {
	if !r.away.Load() {
		r.lostAt.Store(int64(r.store.now()))
		r.away.Store(true)
		r.log.Error("the shared key store does not answer; keys that are known go on working, on what is left of their leases, then on a share of their limits", "error", err)
	}
}

var errAnswer = errors.New("the shared key store's answer has another shape")

// beat says that this node lives, and notes what it hears; follow deals with it. opens is how long until
// leases are given.
func (r *shared) beat(ctx context.Context) (opens time.Duration, err error) {
	known, cut, lineage := "", "0", randomID()
	if era := r.era.Load(); era != nil {
		known = *era
		if r.store.now()-time.Duration(r.lastHeard.Load()) > cutOff {
			cut = "1"
		}
	}
	if l := r.lineage.Load(); l != nil {
		lineage = *l
	}
	newest := r.newest() // before it is heard how far Redis is
	settle := settleTime + declareTime*time.Duration(r.spenders.Load()/1000)
	ctx, cancel := context.WithTimeout(ctx, beatWait)
	defer cancel()
	answer, err := beatScript.Exec(ctx, r.client, []string{redisNodes, redisEra, redisVersion, redisLineage},
		[]string{r.node, known, cut, randomID(), millis(settle), millis(missedAfter), lineage}).ToArray()
	if err != nil {
		return 0, err
	}
	if len(answer) != 5 {
		return 0, errAnswer
	}
	era, err := answer[0].ToString()
	wait, werr := answer[1].AsInt64()
	nodes, nerr := answer[2].AsInt64()
	lineage, lerr := answer[3].ToString()
	version, verr := answer[4].AsInt64()
	if err := errors.Join(err, werr, nerr, lerr, verr); err != nil {
		return 0, err
	}
	switch {
	case known == "":
		r.era.Store(&era)
	case known != era:
		r.newEra.Store(&era)
	default:
		r.newEra.Store(nil)
	}
	if old := r.lineage.Load(); old != nil && *old != lineage {
		r.stray.Store(true)
	}
	r.lineage.Store(&lineage)
	r.version.Store(uint64(version))
	r.missed.Store(0)
	if uint64(version) < newest {
		r.missed.Store(newest)
	}
	r.nodes.Store(max(1, nodes))
	r.lastHeard.Store(int64(r.store.now()))
	if r.away.Swap(false) {
		r.log.Info("the shared key store answers again", "nodes", nodes)
	}
	return time.Duration(wait) * time.Millisecond, nil
}

// follow deals with what was heard: a new era, another lineage, another version.
func (r *shared) follow(ctx context.Context) error {
	if era := r.newEra.Load(); era != nil && *era != *r.era.Load() {
		// What was spent of late is not counted in it. Until it is, nothing is leased here.
		if err := r.leases.declare(ctx, *era); err != nil {
			return err
		}
		r.era.Store(era)
		r.log.Warn("a new era of the shared key store: it is another process or was emptied, or a node was cut off")
	}
	if r.stray.Load() {
		return r.merge(ctx)
	}
	if missed := r.missed.Load(); missed > 0 {
		return r.restore(ctx, missed)
	}
	if r.version.Load() > r.seen.Load() {
		return r.sync(ctx)
	}
	return nil
}

// newest is the newest version that this node knows of.
func (r *shared) newest() uint64 { return max(r.seen.Load(), r.own.Load()) }

// merge is for a store that has begun anew while this node was not looking: what it has is taken, and what this node
// knows besides is written there.
func (r *shared) merge(ctx context.Context) error {
	r.log.Error("the shared key store has begun anew; it is given the keys that it lacks")
	var old []*Key
	r.store.mu.Lock()
	r.store.byID.Range(func(_ string, k *Key) bool {
		k.rev = 0
		old = append(old, k)
		return true
	})
	r.seen.Store(0)
	r.own.Store(0)
	r.store.mu.Unlock()
	if err := r.sync(ctx); err != nil {
		return err
	}
	for _, k := range old {
		r.store.mu.Lock()
		var err error
		if k.rev == 0 { // not there
			k.rev, err = r.put(k.record(), 0)
		}
		r.store.mu.Unlock()
		if err != nil && !errors.Is(err, ErrConflict) { // another node was first
			return err
		}
	}
	r.stray.Store(false)
	return nil
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// sync reads what has changed.
func (r *shared) sync(ctx context.Context) error {
	r.syncing.Lock()
	defer r.syncing.Unlock()
	for {
		ctx, cancel := context.WithTimeout(ctx, changeWait)
		answer, err := sinceScript.Exec(ctx, r.client, []string{redisRecords, redisVersion, redisChanged, redisDeleted},
			[]string{strconv.FormatUint(r.seen.Load(), 10), strconv.Itoa(batch), strconv.Itoa(r.kept)}).AsStrSlice()
		if err == nil && len(answer) > 3 && (answer[1] == "1" || slices.Contains(answer[3:], everything)) {
			err = r.forgetUnknown(ctx)
		}
		cancel()
		if err != nil {
			return err
		}
		more, err := r.apply(answer)
		if err != nil || !more {
			return err
		}
	}
}

// apply has an answer of sinceScript take effect, and reports whether there is more.
func (r *shared) apply(answer []string) (more bool, err error) {
	if len(answer) < 3 {
		return false, errAnswer
	}
	version, verr := strconv.ParseUint(answer[0], 10, 64)
	gone, gerr := strconv.Atoi(answer[2])
	if verr != nil || gerr != nil || len(answer) < 3+gone || (len(answer)-3-gone)%3 != 0 {
		return false, errAnswer
	}
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	for _, id := range answer[3 : 3+gone] {
		if k, ok := r.store.byID.Load(id); ok {
			r.store.forget(k)
		}
	}
	records := answer[3+gone:]
	for i := 0; i < len(records); i += 3 {
		rev, err := strconv.ParseUint(records[i+1], 10, 64)
		if err != nil {
			return false, errAnswer
		}
		if k, ok := r.store.byID.Load(records[i]); ok && k.rev >= rev {
			continue // this node's own change
		}
		if err := r.store.load(records[i], []byte(records[i+2]), rev); err != nil {
			r.log.Error("a key of the shared store cannot be used", "id", records[i], "error", err)
		}
	}
	r.seen.Store(max(r.seen.Load(), version))
	return len(records) == 3*batch, nil
}

// forgetUnknown drops keys that the store does not have: it has forgotten when they were deleted.
func (r *shared) forgetUnknown(ctx context.Context) error {
	r.store.mu.Lock() // or a key that is made meanwhile would be unknown
	defer r.store.mu.Unlock()
	ids, err := r.client.Do(ctx, r.client.B().Hkeys().Key(redisRecords).Build()).AsStrSlice()
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(ids))
	for _, id := range ids {
		there[id] = true
	}
	r.store.byID.Range(func(id string, k *Key) bool {
		if !there[id] {
			r.store.forget(k)
		}
		return true
	})
	return nil
}

// restore gives the store back what it has lost: it is at an older version than this node has seen.
func (r *shared) restore(ctx context.Context, seen uint64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r.log.Error("the shared key store has lost changes; it is given what this node knows", "version", seen)
	gathered := "sluice:restore:" + r.node
	r.store.mu.Lock()
	var commands rueidis.Commands
	commands = append(commands, r.client.B().Del().Key(gathered).Build())
	var err error
	r.store.byID.Range(func(id string, k *Key) bool {
		var value []byte
		if value, err = json.Marshal(k.record()); err != nil {
			return false
		}
		commands = append(commands, r.client.B().Hset().Key(gathered).FieldValue().FieldValue(id, fmt.Sprintf("%d %s", k.rev, value)).Build())
		return true
	})
	r.store.mu.Unlock()
	if err != nil {
		return err
	}
	commands = append(commands, r.client.B().Expire().Key(gathered).Seconds(600).Build())
	for _, answer := range r.client.DoMulti(ctx, commands...) {
		if err := answer.Error(); err != nil {
			return err
		}
	}
	return restoreScript.Exec(ctx, r.client, []string{redisRecords, redisVersion, redisChanged, redisDeleted, gathered},
		[]string{strconv.FormatUint(seen, 10), everything}).Error()
}

// put writes a record, if nobody else has changed it since rev.
func (r *shared) put(rec *record, rev uint64) (uint64, error) {
	value, err := json.Marshal(rec)
	if err != nil {
		return 0, err
	}
	return r.change(rec.ID, rev, string(value))
}

func (r *shared) remove(id string, rev uint64) error {
	_, err := r.change(id, rev, "")
	return err
}

// change is called with the store's mu held.
func (r *shared) change(id string, rev uint64, value string) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), changeWait)
	defer cancel()
	version, err := changeScript.Exec(ctx, r.client, []string{redisRecords, redisVersion, redisChanged, redisDeleted},
		[]string{id, strconv.FormatUint(rev, 10), value, strconv.FormatUint(r.newest(), 10), strconv.Itoa(r.kept)}).AsInt64()
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case version == -1:
		return 0, ErrConflict
	case version < 0:
		return 0, fmt.Errorf("%w: it has lost changes and is being given them back", ErrUnavailable)
	}
	r.own.Store(uint64(version))
	return uint64(version), nil
}

func (r *shared) close() error {
	r.stop()
	r.ended.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.leases.sweep(ctx, func(*limiter.Lease) bool { return true })
	r.leave()
	r.client.Close()
	return nil
}

// leave has the others not count this node any more.
func (r *shared) leave() {
	if r.away.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), beatWait)
	defer cancel()
	if err := r.client.Do(ctx, r.client.B().Zrem().Key(redisNodes).Member(r.node).Build()).Error(); err != nil {
		r.log.Warn("the other nodes will count this one for a while yet", "error", err)
	}
}

// Several processes may have the store.
func (r *shared) giveUp() error { return nil }

func (r *shared) takeBack() error { return nil }
