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
	roster    roster
	strict    atomic.Bool  // see Store.HoldStrictly
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

	heard chan struct{} // something that is to be followed
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
	r := newShared(s, client, log)
	s.kept = r
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	opens, err := r.firstBeat(ctx)
	if err = cmp.Or(err, r.follow(ctx)); err != nil {
		stop()
		client.Close()
		return nil, fmt.Errorf("cannot load the shared key store: %w", err)
	}
	r.ended.Go(func() { r.every(ctx, nil, r.beatOnce) })
	r.ended.Go(func() { r.every(ctx, r.heard, r.work) })
	time.Sleep(min(opens, 2*settleTime)) // only for who comes in a new era: better than to refuse so long
	return s, nil
}

// newShared is what a store has before it has heard anything.
func newShared(s *Store, client rueidis.Client, log *slog.Logger) *shared {
	r := &shared{store: s, client: client, log: log, node: randomID(), kept: keptDeleted, heard: make(chan struct{}, 1)}
	r.leases.of = r
	r.roster.left.Store(never)
	s.shared = r
	return r
}

func randomID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// every does something twice a second, and whenever it is woken, until Close.
func (r *shared) every(ctx context.Context, wake <-chan struct{}, do func(context.Context)) {
	tick := time.NewTicker(beatEvery)
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

func (r *shared) beatOnce(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, beatWait)
	defer cancel()
	if _, err := r.beat(short); err != nil && ctx.Err() == nil {
		r.lost(err)
	}
}

// firstBeat waits longer than the beats after it: nothing has been leased that could end meanwhile, and
// without an answer the node does not start.
func (r *shared) firstBeat(ctx context.Context) (opens time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	return r.beat(ctx)
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
		r.log.Error("the shared key store does not answer; "+r.rule(), "without_store", rules[r.strict.Load()], "nodes", r.roster.most.Load(), "error", err)
	}
}

var errAnswer = errors.New("the shared key store's answer has another shape")

// beat says that this node lives, and notes what it hears; follow deals with it. opens is how long until
// leases are given. ctx bounds the wait.
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
	answer, err := beatScript.Exec(ctx, r.client, []string{redisNodes, redisEra, redisVersion, redisLineage},
		[]string{r.node, known, cut, randomID(), millis(settle), millis(missedAfter), lineage}).ToArray()
	if err != nil {
		return 0, err
	}
	if len(answer) != 6 {
		return 0, errAnswer
	}
	era, err := answer[0].ToString()
	wait, werr := answer[1].AsInt64()
	nodes, nerr := answer[2].AsInt64()
	lineage, lerr := answer[3].ToString()
	version, verr := answer[4].AsInt64()
	left, gerr := answer[5].AsInt64()
	if err := errors.Join(err, werr, nerr, lerr, verr, gerr); err != nil {
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
	now := r.store.now()
	r.nodes.Store(max(1, nodes))
	r.roster.hear(now, nodes, time.Duration(left)*time.Millisecond, known != era || cut == "1")
	r.lastHeard.Store(int64(now))
	if r.away.Swap(false) {
		r.log.Info("the shared key store answers again", "without_store", rules[r.strict.Load()], "nodes", nodes,
			"after", (now - time.Duration(r.lostAt.Load())).Round(time.Millisecond).String())
	}
	if known != era || r.stray.Load() || uint64(version) != newest {
		select {
		case r.heard <- struct{}{}:
		default:
		}
	}
	return time.Duration(wait) * time.Millisecond, nil
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

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
	if err := leaveScript.Exec(ctx, r.client, []string{redisNodes, redisEra}, []string{r.node}).Error(); err != nil {
		r.log.Warn("the other nodes will count this one for a while yet", "error", err)
	}
}

// Several processes may have the store.
func (r *shared) giveUp() error { return nil }

func (r *shared) takeBack() error { return nil }
