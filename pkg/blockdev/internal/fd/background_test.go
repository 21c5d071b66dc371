package fd

import (
	"bytes"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aligned is memory that direct I/O takes.
func aligned(n int) []byte {
	p := make([]byte, n+testAlign)
	skip := testAlign - int(uintptr(unsafe.Pointer(&p[0])))%testAlign
	return p[skip:][:n]
}

// told is what a read that was begun came to.
type told struct {
	t       *testing.T
	done    chan bool
	flushed chan struct{}
}

func newTold(t *testing.T) *told {
	return &told{t, make(chan bool, 2), make(chan struct{}, 2)}
}

func (d *told) ReadDone(ok bool) { d.done <- ok }

func (d *told) Flush() {
	if len(d.done) == 0 {
		d.t.Error("flushed before it was done")
	}
	d.flushed <- struct{}{}
}

// wait returns what ReadDone said, when Flush has followed.
func (d *told) wait() bool {
	d.t.Helper()
	select {
	case <-d.flushed:
	case <-time.After(30 * time.Second):
		d.t.Fatal("told nothing")
	}
	ok := <-d.done
	if len(d.done) > 0 || len(d.flushed) > 0 {
		d.t.Error("told twice")
	}
	return ok
}

// filled is a direct device of size bytes with a pattern on it.
func filled(t *testing.T, size int) (*Device, []byte) {
	t.Helper()
	d := openDirect(t, int64(size))
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(i / 512 * 7)
	}
	if _, err := d.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if d.background == nil {
		t.Fatal("no reads in the background")
	}
	if r := newTold(t); d.BeginRead(aligned(512), 0, r) { // a file system may not know RWF_NOWAIT
		d.Leave()
		r.wait()
	}
	return d, want
}

// Reads that several begin at once all end, each with its data, whoever tells of them.
func TestBackgroundReads(t *testing.T) {
	const size = 1 << 20
	d, want := filled(t, size)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			type read struct {
				*told
				p   []byte
				off int64
			}
			for range 40 {
				var reads []read
				for range 1 + random.IntN(64) {
					n := testAlign * (1 + random.IntN(16))
					r := read{newTold(t), aligned(n), testAlign * int64(random.IntN((size-n)/testAlign))}
					if d.BeginRead(r.p, r.off, r) {
						reads = append(reads, r)
					}
				}
				for range random.IntN(4) {
					d.Reap()
				}
				d.Leave()
				for _, r := range reads {
					if !r.wait() { // it may not have been in memory
						if _, err := d.ReadAt(r.p, r.off); err != nil {
							t.Error(err)
						}
					}
					if !bytes.Equal(r.p, want[r.off:][:len(r.p)]) {
						t.Errorf("%d bytes at %d are others", len(r.p), r.off)
					}
				}
			}
		})
	}
	wg.Wait()
	d.background.close()
	if n := len(d.background.free); n != backgroundDepth {
		t.Errorf("%d places are free", n)
	}
}

// What the device cannot read so is not taken.
func TestBackgroundReadNotTaken(t *testing.T) {
	d, _ := filled(t, 1<<20)
	for name, taken := range map[string]bool{
		"another address":   d.BeginRead(aligned(1024)[1:513], 0, nil),
		"another offset":    d.BeginRead(aligned(512), 8, nil),
		"part of a block":   d.BeginRead(aligned(512)[:100], 0, nil),
		"nothing":           d.BeginRead(nil, 0, nil),
		"past the end":      d.BeginRead(aligned(1024), 1<<20-512, nil),
		"before the start":  d.BeginRead(aligned(512), -512, nil),
		"without O_DIRECT":  open(t, Calls{}).BeginRead(aligned(512), 0, nil),
		"an offset too big": d.BeginRead(aligned(512), 1<<63-512, nil),
	} {
		if taken {
			t.Error(name)
		}
	}
	var all []*told
	for range backgroundDepth {
		r := newTold(t)
		if !d.BeginRead(aligned(512), 0, r) {
			t.Fatalf("read %d was not taken", len(all))
		}
		all = append(all, r)
	}
	if d.BeginRead(aligned(512), 0, nil) {
		t.Error("more than there are places")
	}
	d.Leave()
	for _, r := range all {
		r.wait()
	}
}

// Who looks after reads is told of them by its own call, until it leaves them; what has
// ended before that is told of then.
func TestReapAndLeave(t *testing.T) {
	d, _ := filled(t, 1<<20)
	if d.Reap() {
		t.Error("there is nothing to tell of")
	}
	begin := func() *told {
		t.Helper()
		r := newTold(t)
		if !d.BeginRead(aligned(512), 0, r) {
			t.Fatal("not taken")
		}
		return r
	}
	for range 3 {
		r := begin()
		for !d.Reap() {
			runtime.Gosched()
		}
		r.wait()
	}
	r := begin()
	if len(r.flushed) > 0 {
		t.Error("told of by nobody's call")
	}
	d.Leave()
	r.wait()
	all := []*told{begin(), begin()}
	d.Leave()
	all = append(all, begin()) // somebody looks after all of them again
	d.Leave()
	for _, r := range all {
		r.wait()
	}
}

// Reads that were left are told of, whoever comes and attends to other reads, or to none.
func TestLeftReads(t *testing.T) {
	d, _ := filled(t, 1<<20)
	b := d.background
	var held []*iocb
	submit := func(_ uint64, r *iocb) error { held = append(held, r); return nil }
	refuse := func(uint64, *iocb) error { return unix.EAGAIN }
	begin := func(submit func(uint64, *iocb) error) (*told, bool) {
		r := newTold(t)
		b.submit = submit
		return r, d.BeginRead(aligned(512), 0, r)
	}
	left, _ := begin(submit)
	d.Leave()
	if _, ok := begin(refuse); ok {
		t.Error("taken")
	}
	b.mu.Lock()
	if b.attended {
		t.Error("who had no read is to attend")
	}
	b.mu.Unlock()
	attended, _ := begin(submit) // and who began it is busy
	for _, r := range held {
		if err := ioSubmit(b.context, r); err != nil {
			t.Fatal(err)
		}
	}
	left.wait()
	d.Leave()
	attended.wait()
}

// A read that fails says so, and one that the kernel refuses is not taken.
func TestBackgroundReadFails(t *testing.T) {
	d, _ := filled(t, 1<<20)
	try := func(off int64) bool {
		t.Helper()
		r := newTold(t)
		if !d.BeginRead(aligned(1024), off, r) {
			return false
		}
		d.Leave()
		return r.wait()
	}
	try(0) // a file system that does not know RWF_NOWAIT says so
	if !try(0) {
		t.Error("failed")
	}
	if err := os.Truncate(d.file.Name(), 512); err != nil {
		t.Fatal(err)
	}
	if try(0) || try(4096) {
		t.Error("read what is not there")
	}
	if err := os.Truncate(d.file.Name(), 4096); err != nil {
		t.Fatal(err)
	}
	d.background.rwFlags = unix.RWF_NOWAIT
	d.background.submit = func(context uint64, r *iocb) error {
		if r.rwFlags != 0 {
			return unix.EOPNOTSUPP
		}
		return ioSubmit(context, r)
	}
	if !try(0) {
		t.Error("not asked for without RWF_NOWAIT")
	}
	if _, err := d.ReadAt(make([]byte, 4096), 0); err != nil { // into memory
		t.Fatal(err)
	}
	if !try(0) {
		t.Error("a file system without RWF_NOWAIT is asked for it again")
	}
	d.background.submit = func(uint64, *iocb) error { return unix.EAGAIN }
	if try(0) {
		t.Error("not refused")
	}
	d.background.close()
	if n := len(d.background.free); n != backgroundDepth {
		t.Errorf("%d places are free", n)
	}
}

// Close waits for the reads that were taken, and takes no more.
func TestCloseWithBackgroundReads(t *testing.T) {
	d, _ := filled(t, 1<<20)
	r := newTold(t)
	if !d.BeginRead(aligned(512), 0, r) {
		t.Fatal("not taken")
	}
	closed := make(chan struct{})
	go func() {
		d.background.close()
		close(closed)
	}()
	select {
	case <-closed:
		t.Error("closed before it was done")
	case <-time.After(50 * time.Millisecond):
	}
	d.Leave()
	<-closed
	r.wait()
	if d.BeginRead(aligned(512), 0, r) {
		t.Error("taken after Close")
	}
	d.Leave()
	if d.Reap() {
		t.Error("told of something after Close")
	}
}
