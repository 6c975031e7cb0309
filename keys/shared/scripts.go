package shared

import (
	_ "embed"

	"github.com/redis/rueidis"
)

// Where things are in Redis. All times there are Redis's own, in milliseconds.
const (
	redisRecords = "sluice:keys"    // hash: id → record
	redisVersion = "sluice:version" // how many changes there have been
	redisChanged = "sluice:changed" // sorted set: id → version of its newest change
	redisDeleted = "sluice:deleted" // the same of those that were deleted, the newest keptDeleted
	redisNodes   = "sluice:nodes"   // sorted set: node → when it was heard of
	redisEra     = "sluice:era"     // hash: id, opens, server and left, see below
	redisLineage = "sluice:lineage" // an id of this history of changes
	redisWindows = "sluice:window:" // and the limit's name, a colon, the key's id: hash, see lease.lua

	// Of an era redisEra has: when leases begin to be given in it (opens), the run_id of Redis
	// (server), and when a node last went (left).

	// everything stands among the deleted for all that is not there.
	everything = "*"
	// keptDeleted is how many deleted keys are remembered, for nodes that come back.
	keptDeleted = 10_000
)

//go:embed change.lua
var changeText string

//go:embed since.lua
var sinceText string

//go:embed restore.lua
var restoreText string

//go:embed beat.lua
var beatText string

//go:embed leave.lua
var leaveText string

//go:embed lease.lua
var leaseText string

// Each script runs as one step. Its file begins with what it does, what it is given and what it returns.
var (
	changeScript  = rueidis.NewLuaScript(changeText)
	sinceScript   = rueidis.NewLuaScript(sinceText)
	restoreScript = rueidis.NewLuaScript(restoreText)
	beatScript    = rueidis.NewLuaScript(beatText)
	leaveScript   = rueidis.NewLuaScript(leaveText)
	leaseScript   = rueidis.NewLuaScript(leaseText)
)

// otherEra is what leaseScript gives a node that does not know the era. Below zero are all grants
// that are refused because nobody knows what has been spent.
const otherEra = -1
