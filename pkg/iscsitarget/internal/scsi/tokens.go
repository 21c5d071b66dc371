package scsi

import (
	"crypto/subtle"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Limits on ROD tokens. VPD page 8Fh advertises those that initiators can go by.
const (
	// maxTokens is what a unit remembers, spent tokens included.
	maxTokens = 64
	// maxNexusTokens are good ones of one unit that one nexus made.
	maxNexusTokens      = 16
	defaultTokenTimeout = 60 * time.Second
	maxTokenTimeout     = 600 * time.Second
)

// rodToken stands for blocks of a unit as they were when it was made (SPC-4, ROD
// tokens): of the type point in time copy - change vulnerable, it is good until
// one of the blocks changes.
type rodToken struct {
	text    [rodTokenBytes]byte
	nexus   *Nexus // that it was made for
	extents []extent
	length  int64
	timeout time.Duration
	// era is the durability's: what a unit shows after a Recover may be older.
	era int64

	// The rest is the table's, under its lock.
	used  time.Time
	users int
	// spent is the additional sense code for who presents a token that is no
	// longer good, 0 for one that is.
	spent uint16
}

// tokens are the ROD tokens that stand for blocks of one unit, oldest first.
type tokens struct {
	// alive is how many of them are good: where none is, a change of the
	// medium looks at nothing else.
	alive atomic.Int32

	mu     sync.Mutex
	all    []*rodToken
	serial uint64
}

// add takes a token in: every change that begins from then on meets it.
func (k *tokens) add(t *rodToken, text func(serial uint64) [rodTokenBytes]byte) Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire()
	if k.count(t.nexus) >= maxNexusTokens || !k.makeRoom() {
		return check(illegalRequest, ascInsufficientResourcesForToken)
	}
	k.serial++
	t.text, t.used = text(k.serial), time.Now()
	k.all = append(k.all, t)
	k.alive.Add(1)
	return StatusGood
}

func (k *tokens) count(n *Nexus) (good int) {
	for _, t := range k.all {
		if t.nexus == n && t.spent == 0 {
			good++
		}
	}
	return good
}

// makeRoom forgets the oldest spent token where there are too many.
func (k *tokens) makeRoom() bool {
	if len(k.all) < maxTokens {
		return true
	}
	i := slices.IndexFunc(k.all, func(t *rodToken) bool { return t.spent != 0 && t.users == 0 })
	if i < 0 {
		return false
	}
	k.all = slices.Delete(k.all, i, i+1)
	return true
}

func (k *tokens) spend(t *rodToken, why uint16) {
	if t.spent == 0 {
		t.spent = why
		k.alive.Add(-1)
	}
}

// expire spends the tokens that nobody used for their inactivity timeout.
func (k *tokens) expire() {
	for _, t := range k.all {
		if t.users == 0 && time.Since(t.used) >= t.timeout {
			k.spend(t, ascTokenExpired)
		}
	}
}

// changed cancels the tokens that [at, at+n) of the medium is about to change
// under. Who changes it holds the guard for the range by then.
func (k *tokens) changed(at, n int64) {
	if k.alive.Load() == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire()
	for _, t := range k.all {
		if t.covers(at, n) {
			k.spend(t, ascTokenCancelled)
		}
	}
}

func (t *rodToken) covers(at, n int64) bool {
	return slices.ContainsFunc(t.extents, func(e extent) bool { return e.meets(extent{at, n}) })
}

func (e extent) meets(f extent) bool {
	return e.length > 0 && f.length > 0 && e.at < f.at+f.length && f.at < e.at+e.length
}

// take returns the token, nil for one of somebody else; it does not expire until
// it is put back.
func (k *tokens) take(text []byte) *rodToken {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire()
	for _, t := range k.all {
		if subtle.ConstantTimeCompare(t.text[:], text) == 1 {
			t.users++
			return t
		}
	}
	return nil
}

// put ends a use, and the token where that was asked for.
func (k *tokens) put(t *rodToken, deletes bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t.users--
	t.used = time.Now()
	if deletes {
		k.spend(t, ascTokenDeleted)
	}
}

// check is GOOD while the blocks are what the token stands for.
func (k *tokens) check(t *rodToken, era int64) Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t.era != era {
		k.spend(t, ascTokenCancelled)
	}
	if t.spent != 0 {
		return check(illegalRequest, t.spent)
	}
	return StatusGood
}

// report appends what REPORT ALL ROD TOKENS shows of the good ones.
func (k *tokens) report(b []byte, most int) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire()
	for _, t := range k.all {
		if t.spent == 0 && len(b)+rodManagementBytes <= most {
			b = append(b, t.text[:rodManagementBytes]...)
		}
	}
	return b
}
