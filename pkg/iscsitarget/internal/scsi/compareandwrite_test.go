package scsi

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
)

func TestCompareAndWrite(t *testing.T) {
	d := newDisk(64, 512)
	before := bytes.Clone(d.now)
	r := newRig(t, syncDisk{d})
	new2 := pattern(1024)
	r.expect("good", "89 00 0000000000000003 000000 02 00 00", append(bytes.Clone(before[3*512:5*512]), new2...)...)
	holds(t, d, before, 3, new2)

	wrong := append(bytes.Clone(new2), make([]byte, 1024)...)
	wrong[700] ^= 1
	r.expect("E/1D00 at 700", "89 00 0000000000000003 000000 02 00 00", wrong...)
	holds(t, d, before, 3, new2)
	wrong[700] ^= 1
	r.expect("good", "89 08 0000000000000003 000000 02 00 00", wrong...) // FUA
	holds(t, d, before, 3, make([]byte, 1024))
	if !bytes.Equal(d.stable[3*512:5*512], make([]byte, 1024)) {
		t.Error("FUA is not stable")
	}
}

func TestCompareAndWriteRefusals(t *testing.T) {
	d := newDisk(256, 512)
	before := bytes.Clone(d.now)
	r := newRig(t, d)
	r.expect("good", "89 00 0000000000000003 000000 00 00 00")
	r.expect("5/2100", "89 00 00000000000000FF 000000 02 00 00", make([]byte, 2048)...)
	r.expect("5/2400 byte 13 bit 7", "89 00 0000000000000000 000000 81 00 00", make([]byte, 2*0x81*512)...)
	r.expect("5/2400 byte 1 bit 7", "89 20 0000000000000000 000000 01 00 00", make([]byte, 1024)...)
	for n := range 1024 {
		r.expect("5/0E03", "89 00 0000000000000000 000000 01 00 00", make([]byte, n)...)
	}
	d.readErr = errDisk
	r.expect("3/1100 at 1", "89 00 0000000000000000 000000 02 00 00", make([]byte, 2048)...)
	d.readErr = nil
	holds(t, d, before, 0, nil)
	ro := newRig(t, d, readOnly)
	ro.expect("7/2700", "89 00 0000000000000000 000000 01 00 00", make([]byte, 1024)...)
}

// TestCompareAndWriteIsAtomic: of many that count up the same block every one
// that ends GOOD counts, while a plain writer works beside them.
func TestCompareAndWriteIsAtomic(t *testing.T) {
	d := newDisk(64, 512)
	clear(d.now)
	r := newRig(t, d)
	const workers, each = 8, 50
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				for !increment(t, r) {
				}
			}
		})
	}
	wg.Wait()
	if want := fmt.Sprintf("%08d", workers*each); string(d.now[:8]) != want {
		t.Errorf("counted to %q, want %s", d.now[:8], want)
	}
}

func increment(t *testing.T, r *rig) bool {
	now, _ := run(t, r.nexus, "28 00 00000000 00 0001 00", nil)
	var n int
	_, _ = fmt.Sscanf(string(now[:8]), "%d", &n) // zeros are 0
	next := make([]byte, 512)
	copy(next, fmt.Sprintf("%08d", n+1))
	_, st := run(t, r.nexus, "89 00 0000000000000000 000000 01 00 00", append(now, next...))
	return st.code == Good
}
