// Command scale simulates how many operations a Redis gets from many nodes, and how much of the limits lies
// in leases that nobody spends. docs/scale.md has what it prints.
//
//	go run -C bench ./scale
package main

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// The rules of package keys, in seconds.
const (
	leaseAtMost = 5.0  // a lease holds a 40th of the period, and no longer than this
	sweepEvery  = 0.5  // what is over is given back this late
	beatsASec   = 2.0  // of each node
	warmUp      = 20.0 // leases, before anything is counted
	counted     = 200.0
)

func main() {
	keys := flag.Int("keys", 100_000, "how many there are")
	perNode := flag.Float64("rate", 1000, "requests per second of each node")
	zipf := flag.Float64("s", 1.1, "exponent of the Zipf distribution of requests over keys")
	headroom := flag.Float64("headroom", 2, "how many times its requests a key's limit is")
	flag.Parse()

	weights := make([]float64, *keys)
	sum := 0.0
	for i := range weights {
		weights[i] = math.Pow(float64(i+1), -*zipf)
		sum += weights[i]
	}
	fmt.Printf("%d keys, %.0f requests a second on each node, Zipf s=%.2f, limits of %.1f times the traffic\n\n", *keys, *perNode, *zipf, *headroom)
	fmt.Println("| nodes | period | requests/s | Redis operations/s | of a request | unspent in leases |")
	fmt.Println("| --- | --- | --- | --- | --- | --- |")
	for _, nodes := range []int{10, 100, 1000} {
		for _, period := range []time.Duration{time.Second, time.Minute, time.Hour} {
			all := *perNode * float64(nodes)
			operations, unspent, limits := beatsASec*float64(nodes), 0.0, 0.0
			// Keys of about the same rank behave alike: one of each group is simulated.
			for from := 0; from < *keys; {
				to := min(*keys, max(from+1, from*6/5))
				weight := 0.0
				for _, w := range weights[from:to] {
					weight += w
				}
				group := float64(to - from)
				rate := all * weight / sum / group // of one key
				limit := math.Max(1, rate*period.Seconds()**headroom)
				ops, idle := simulate(rate/float64(nodes), limit, nodes, period.Seconds())
				operations += ops * float64(nodes) * group
				unspent += idle * float64(nodes) * group
				limits += limit * group
				from = to
			}
			fmt.Printf("| %d | %s | %.0f | %.0f | %.3f | %.2f%% |\n", nodes, period, all, operations, operations/all, 100*unspent/limits)
		}
	}
}

// simulate is one node with one key, whose requests come at random at that rate: how many operations a second it asks Redis,
// and how much of the limit it holds on average without spending it.
func simulate(rate, limit float64, nodes int, period float64) (operations, unspent float64) {
	lease := math.Min(period/40, leaseAtMost)
	random := rand.New(rand.NewPCG(1, uint64(rate*1e9)))
	want, now, end := 1.0, 0.0, 0.0
	until := (warmUp + counted) * math.Max(lease, 1/rate)
	start := until * warmUp / (warmUp + counted)
	count, held := 0.0, 0.0
	note := func(ops, area float64) {
		if now >= start {
			count += ops
			held += area
		}
	}
	for now < until {
		now = math.Max(now, end) + random.ExpFloat64()/rate // the request that finds no lease
		free := limit * 0.5                                 // what the traffic of all leaves of it
		got := math.Max(1, math.Min(want, math.Floor(free/float64(nodes+1))))
		note(1, 0)
		spent := 1.0
		at := now
		end = now + lease
		area := 0.0
		for spent < got {
			next := at + random.ExpFloat64()/rate
			area += (got - spent) * (math.Min(next, end) - at)
			if next >= end {
				break
			}
			at = next
			spent++
		}
		switch {
		case spent < got: // over before it was spent: the rest is given back at the next sweep, or with the next lease
			area += (got - spent) * sweepEvery / 2
			note(1, area)
			want = math.Max(1, spent+math.Floor(spent/4))
		default:
			note(0, area)
			end = at // spent: the next request asks anew
			want = math.Min(2*want, limit)
		}
	}
	return count / (until - start), held / (until - start)
}
