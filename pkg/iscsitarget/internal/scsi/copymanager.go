package scsi

import (
	"context"
	"slices"
	"sync"
)

// maxCopies bounds the copy operations, finished ones included, that an I_T_L
// nexus is told about: TOTAL CONCURRENT COPIES.
const maxCopies = 16

// copyOperation is what the copy manager knows of a third-party copy command
// (SPC-4, third-party copy). The fields below mu change while it runs.
type copyOperation struct {
	id     uint32
	named  bool // by id: others cannot be asked for
	action byte // SERVICE ACTION of the command
	cancel context.CancelFunc

	mu       sync.Mutex
	over     bool
	status   Status
	bytes    int64
	segments int
	token    []byte // that POPULATE TOKEN made
}

// copies are an I_T_L nexus's copy operations by list identifier, oldest first.
// They end with the nexus.
type copies struct {
	mu  sync.Mutex
	all []*copyOperation
}

// manage runs a copy operation to its end. A named one can be asked for by its
// list identifier meanwhile and afterwards.
func (c *Command) manage(ctx context.Context, id uint32, named bool, run func(context.Context, *copyOperation) Status) Status {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	op := &copyOperation{id: id, named: named, action: c.cdb[1] & 0x1F, cancel: cancel}
	if st := c.itl.copies.begin(op); st.code != Good {
		return st
	}
	if !named {
		defer c.itl.copies.drop(op)
	}
	st := run(ctx, op)
	op.end(c.inFormat(st))
	return st
}

// begin takes the place of a finished operation with the same list identifier,
// or else of the oldest finished one where there are too many.
func (s *copies) begin(op *copyOperation) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.index(op.id); op.named && i >= 0 {
		if !s.all[i].isOver() {
			return check(illegalRequest, ascOperationInProgress)
		}
		s.all = slices.Delete(s.all, i, i+1)
	}
	if len(s.all) == maxCopies {
		i := slices.IndexFunc(s.all, (*copyOperation).isOver)
		if i < 0 {
			return StatusBusy
		}
		s.all = slices.Delete(s.all, i, i+1)
	}
	s.all = append(s.all, op)
	return StatusGood
}

func (s *copies) index(id uint32) int {
	return slices.IndexFunc(s.all, func(op *copyOperation) bool { return op.named && op.id == id })
}

// find returns nil where no operation has the list identifier.
func (s *copies) find(id uint32) *copyOperation {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.index(id); i >= 0 {
		return s.all[i]
	}
	return nil
}

// drop forgets a finished operation.
func (s *copies) drop(op *copyOperation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(o *copyOperation) bool { return o == op })
}

// clear forgets the finished operations, as a reset does.
func (s *copies) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, (*copyOperation).isOver)
}

func (op *copyOperation) isOver() bool {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.over
}

func (op *copyOperation) end(st Status) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.over, op.status = true, st
}

// move counts bytes that arrived.
func (op *copyOperation) move(n int64) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.bytes += n
}

func (op *copyOperation) segmentDone() {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.segments++
}

// copyState is a copyOperation at one moment.
type copyState struct {
	action   byte
	over     bool
	status   Status
	bytes    int64
	segments int
	token    []byte
}

func (op *copyOperation) state() copyState {
	op.mu.Lock()
	defer op.mu.Unlock()
	return copyState{op.action, op.over, op.status, op.bytes, op.segments, op.token}
}

// forgetCopies is what a reset does to the finished operations of all nexuses.
func (u *Unit) forgetCopies() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for l := range u.itls {
		l.copies.clear()
	}
}
