package keys

import (
	"errors"
	"time"
)

// ErrUnavailable is the error for a change that could not be written: the store's file is another process's
// now, its disk is full or read-only, or the shared store does not answer.
var ErrUnavailable = errors.New("the key store cannot be written to now")

// ErrConflict is the error for a change of a key that another node has changed at the same moment.
var ErrConflict = errors.New("another node has changed this key at the same moment")

// Record is a key as it is kept.
type Record struct {
	Spec
	Hash string `json:"hash"`
}

// Keeper is where records are kept. What it has written when it returns survives the process.
type Keeper interface {
	// Put writes a record over the one of revision rev, 0 for none, and returns its own revision.
	Put(r *Record, rev uint64) (uint64, error)
	Remove(id string, rev uint64) error
	// GiveUp lets another process have it, and TakeBack has it again if that has not come to be.
	GiveUp() error
	TakeBack() error
	Close() error
}

// SharedKeeper is a Keeper that several nodes use, and that counts together what they admit. What
// others change it has the index learn by Store.Exclusively.
type SharedKeeper interface {
	Keeper
	// Share is this node's part of one limit of one key.
	Share(limit, id string) Share
	Sharing() Sharing
	// HoldStrictly chooses the rule that holds while the Keeper does not answer: strict, or share,
	// which holds until this is called.
	HoldStrictly(strict bool)
}

// Sharing is how a store that several nodes use is doing.
type Sharing struct {
	Answers bool          // or does not
	Silent  time.Duration // since it last did
	Nodes   int64         // this one among them, when it last did
	Strict  bool          // which rule holds while it does not, see HoldStrictly
}
