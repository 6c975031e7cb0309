package shared

import (
	"context"
	"strconv"

	"sluice/limiter"
)

// report is what a share has to tell Redis.
type report struct {
	back  map[int64]int64 // what comes back of leases, by the 80th of a period in which they end
	extra int64           // what was spent without a lease
}

func (r *report) add(mark, amount int64) {
	if r.back == nil {
		r.back = map[int64]int64{}
	}
	r.back[mark] += amount
}

func (r *report) empty() bool { return len(r.back) == 0 && r.extra == 0 }

// leaseArgs are the arguments of leaseScript.
func leaseArgs(era string, rule limiter.Rule, least, want, nodes int64, say report) []string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	args := []string{era, millis(rule.Period), number(rule.Limit), number(least), number(want),
		millis(leaseTime(rule.Period)), number(nodes), number(say.extra)}
	for mark, n := range say.back {
		args = append(args, number(mark), number(n))
	}
	return args
}

// send asks Redis for a lease, and reports. The answer is what leaseScript returns.
func (s *share) send(ctx context.Context, rule limiter.Rule, least, want int64) ([]int64, error) {
	r := s.of.of
	say, era, term := s.reported(rule)
	answer, err := leaseScript.Exec(ctx, r.client, []string{s.name, redisEra},
		leaseArgs(era, rule, least, want, r.nodes.Load(), say)).AsIntSlice()
	if err == nil && len(answer) != 4 {
		err = errAnswer
	}
	if err != nil {
		s.unreported(rule, say, term)
		return nil, err
	}
	if answer[0] == otherEra { // what was spent is reported in it anew
		s.unreported(rule, say, term)
		answer[3] = r.pace.beat.Milliseconds()
	}
	return answer, nil
}

// reported takes the report, and the era that it is of.
func (s *share) reported(rule limiter.Rule) (say report, era string, term int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shape = rule
	say, s.say = s.say, report{}
	say.extra = s.extra.Swap(0)
	return say, *s.of.of.era.Load(), s.term.Load()
}

// unreported notes anew what was spent, where Redis has not answered, or knows another era that this share has begun
// already. What was to come back is not reported again: it may have been heard, and would come back twice.
func (s *share) unreported(rule limiter.Rule, say report, term int64) {
	if say.extra > 0 && term == s.term.Load() {
		s.overspent(rule, say.extra)
	}
}

// give puts back what was taken of lease and not used.
func (s *share) give(lease *limiter.Lease, amount int64) {
	if lease == nil || amount <= 0 || lease.Give(s.of.of.now(), amount) {
		return
	}
	s.comesBack(lease, amount)
}

// comesBack notes that amount of a lease was not spent, unless what this node has spent was
// declared since, and this with it.
func (s *share) comesBack(lease *limiter.Lease, amount int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lease.Term == s.term.Load() {
		s.say.add(lease.Mark, amount)
		s.of.note(s)
	}
}

// overspent notes what was used beyond what was taken. Only the first that there is to report takes a lock.
func (s *share) overspent(rule limiter.Rule, amount int64) {
	if amount <= 0 || s.extra.Add(amount) != amount {
		return
	}
	s.mu.Lock()
	s.shape = rule
	s.mu.Unlock()
	s.of.note(s)
}
