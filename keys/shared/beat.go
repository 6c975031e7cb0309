package shared

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// pace is how long nodes wait for each other and for Redis. All nodes at a Redis have the same.
type pace struct {
	// beat is how often a node says that it lives, and learns what has changed.
	beat time.Duration
	// answer is how long it waits for the answer.
	answer time.Duration
	// cutOff is how long without an answer makes a node take itself for cut off: others cannot
	// count on it, and what it spends is not counted.
	cutOff time.Duration
	// settle is how long nodes have to declare what they have spent when a new era begins.
	settle time.Duration
	// missed is how long after its last beat a node is not counted any more.
	missed time.Duration
}

var normalPace = pace{
	beat: 500 * time.Millisecond, answer: 400 * time.Millisecond,
	cutOff: 2 * time.Second, settle: 2 * time.Second, missed: 10 * time.Second,
}

// heard is what beats have heard of Redis. follow deals with it.
type heard struct {
	last   atomic.Int64 // when, on the clock of now
	away   atomic.Bool  // Redis does not answer
	lostAt atomic.Int64 // when that was noticed
	nodes  atomic.Int64 // how many there are

	era     atomic.Pointer[string]
	newEra  atomic.Pointer[string] // the era that follows once this node has declared in it what it spent
	lineage atomic.Pointer[string]
	version atomic.Uint64 // of the keys
	missed  atomic.Uint64 // the version that this node knew of when an older one was heard; 0 for none
	stray   atomic.Bool   // the lineage has become another
}

// firstBeat waits longer than the beats after it: nothing has been leased that could end
// meanwhile, and without an answer the node does not start.
func (r *redis) firstBeat(ctx context.Context) (opens time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	return r.beat(ctx)
}

func (r *redis) beatOnce(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, r.pace.answer)
	defer cancel()
	if _, err := r.beat(short); err != nil && ctx.Err() == nil {
		r.lost(err)
	}
}

// lost notes that Redis does not answer.
func (r *redis) lost(err error) {
	if !r.away.Load() {
		r.lostAt.Store(int64(r.now()))
		r.away.Store(true)
		r.log.Error("the shared key store does not answer; "+r.rule(),
			"without_store", rules[r.strict.Load()], "nodes", r.roster.most.Load(), "error", err)
	}
}

// beat says that this node lives, and notes what it hears. opens is how long until leases are
// given. ctx bounds the wait.
func (r *redis) beat(ctx context.Context) (opens time.Duration, err error) {
	known, cut, lineage := "", false, randomID()
	if era := r.era.Load(); era != nil {
		known = *era
		cut = r.now()-time.Duration(r.last.Load()) > r.pace.cutOff
	}
	if l := r.lineage.Load(); l != nil {
		lineage = *l
	}
	newest := r.newest() // before it is heard how far Redis is
	settle := r.pace.settle + declareTime*time.Duration(r.spenders.Load()/1000)
	answer, err := readBeat(beatScript.Exec(ctx, r.client, []string{redisNodes, redisEra, redisVersion, redisLineage},
		[]string{r.node, known, digit(cut), randomID(), millis(settle), millis(r.pace.missed), lineage}))
	if err != nil {
		return 0, err
	}
	r.noteEra(known, answer.era)
	r.noteVersion(answer.lineage, answer.version, newest)
	r.noteNodes(answer, known != answer.era || cut)
	if known != answer.era || r.stray.Load() || answer.version != newest {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	return answer.opens, nil
}

// beatAnswer is what the beat's script returns.
type beatAnswer struct {
	era, lineage string
	opens        time.Duration // in which leases begin to be given
	nodes        int64
	version      uint64
	left         time.Duration // since a node went; below zero if none has
}

var errAnswer = errors.New("the shared key store's answer has another shape")

func readBeat(result rueidis.RedisResult) (a beatAnswer, err error) {
	answer, err := result.ToArray()
	if err != nil {
		return a, err
	}
	if len(answer) != 6 {
		return a, errAnswer
	}
	era, err := answer[0].ToString()
	opens, oerr := answer[1].AsInt64()
	nodes, nerr := answer[2].AsInt64()
	lineage, lerr := answer[3].ToString()
	version, verr := answer[4].AsInt64()
	left, gerr := answer[5].AsInt64()
	a = beatAnswer{era, lineage, time.Duration(opens) * time.Millisecond, nodes, uint64(version), time.Duration(left) * time.Millisecond}
	return a, errors.Join(err, oerr, nerr, lerr, verr, gerr)
}

func (r *redis) noteEra(known, era string) {
	switch {
	case known == "":
		r.era.Store(&era)
	case known != era:
		r.newEra.Store(&era)
	default:
		r.newEra.Store(nil)
	}
}

// noteVersion notes where the changes of keys are. newest is the newest that this node knew of.
func (r *redis) noteVersion(lineage string, version, newest uint64) {
	if old := r.lineage.Load(); old != nil && *old != lineage {
		r.stray.Store(true)
	}
	r.lineage.Store(&lineage)
	r.version.Store(version)
	r.missed.Store(0)
	if version < newest {
		r.missed.Store(newest)
	}
}

// noteNodes notes that Redis answers, and who else lives. broken is whether nodes may have had no
// way to say so.
func (r *redis) noteNodes(a beatAnswer, broken bool) {
	now := r.now()
	r.nodes.Store(max(1, a.nodes))
	r.roster.hear(now, a.nodes, a.left, broken, r.pace.missed)
	r.last.Store(int64(now))
	if r.away.Swap(false) {
		r.log.Info("the shared key store answers again", "without_store", rules[r.strict.Load()], "nodes", a.nodes,
			"after", (now - time.Duration(r.lostAt.Load())).Round(time.Millisecond).String())
	}
}

// leave has the others not count this node any more.
func (r *redis) leave() {
	if r.away.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.pace.answer)
	defer cancel()
	if err := leaveScript.Exec(ctx, r.client, []string{redisNodes, redisEra}, []string{r.node}).Error(); err != nil {
		r.log.Warn("the other nodes will count this one for a while yet", "error", err)
	}
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func digit(yes bool) string {
	if yes {
		return "1"
	}
	return "0"
}
