package scsi

import (
	"bytes"
	"context"
	"sync"
)

// Values of BYTCHK, bits 2 and 1 of byte 1 (SBC-3 section 5.26).
const (
	checkMedium   = 0 // read the medium
	checkData     = 1 // compare every block with the data sent
	reservedCheck = 2
	checkBlock    = 3 // compare every block with the one block sent
)

// stepBytes is how much a long command does between two looks at its context.
const stepBytes = 256 << 10

// scratch holds buffers of stepBytes.
var scratch = sync.Pool{New: func() any { b := make([]byte, stepBytes); return &b }}

func (r request) bytchk() byte { return r.cdb[1] >> 1 & 3 }

// decodeWriteAndVerify is WRITE AND VERIFY(10), (12) and (16), SBC-3 sections
// 5.35 to 5.37. The data is stable before GOOD, as what was verified must be
// the medium's.
func decodeWriteAndVerify(r request) Command {
	mode := r.bytchk()
	switch {
	case r.cdb[1]&protectMask != 0:
		return r.fail(invalidField(1, 7))
	case mode > checkData:
		return r.fail(invalidField(1, 2))
	}
	lba, blocks := r.extent()
	c := r.transfer(Write, DataOut, lba, blocks)
	c.store, c.fua, c.verify, c.compare = true, true, true, mode == checkData
	return c
}

// decodeVerify is VERIFY(10), (12) and (16), SBC-3 sections 5.26 to 5.28.
func decodeVerify(r request) Command {
	mode := r.bytchk()
	switch {
	case r.cdb[1]&protectMask != 0:
		return r.fail(invalidField(1, 7))
	case mode == reservedCheck:
		return r.fail(invalidField(1, 2))
	}
	lba, blocks := r.extent()
	c := r.transfer(Write, DataOut, lba, blocks)
	if c.Kind == Done {
		return c
	}
	switch mode {
	case checkMedium:
		c.Kind, c.Dir, c.Length = Exec, NoData, 0
	case checkBlock:
		c.Kind, c.Length, c.compare = Exec, r.itl.unit.blockSize, true
	default:
		c.verify, c.compare = true, true
	}
	return c
}

// executeVerify is VERIFY with BYTCHK 0 or 3.
func executeVerify(ctx context.Context, c Command, params []byte) ([]byte, Status) {
	if int64(len(params)) < c.Length {
		return nil, check(illegalRequest, ascInvalidFieldInCommandIU)
	}
	buffer := scratch.Get().(*[]byte)
	defer scratch.Put(buffer)
	var want []byte
	if c.compare {
		pattern := scratch.Get().(*[]byte)
		defer scratch.Put(pattern)
		want = *pattern
		fill(want, params[:c.Length])
	}
	return nil, c.inSteps(ctx, stepBytes, func(at, n int64) Status {
		return c.verifyStep((*buffer)[:n], want, at)
	})
}

// verifyStep reads part of the medium into p and compares it with the start of
// want; a nil want is not compared.
func (c *Command) verifyStep(p, want []byte, at int64) Status {
	if !c.store {
		// What is compared must be what the medium keeps (SBC-3 4.15.1).
		if st := c.itl.flushDirty(); st.code != Good {
			return st
		}
	}
	u := c.itl.unit
	if _, n, err := u.read(p, at); n < len(p) && err != nil {
		return u.readFailed(err, at+int64(n))
	}
	if want == nil || bytes.Equal(p, want[:len(p)]) {
		return StatusGood
	}
	differs := at + int64(firstDifference(p, want))
	return check(miscompare, ascMiscompareDuringVerify).withInfo(uint64(differs / u.blockSize))
}

// verifyAt reads back, and compares, what a part of a Write brought.
func (c *Command) verifyAt(p []byte, at int64) Status {
	buffer := scratch.Get().(*[]byte)
	defer scratch.Put(buffer)
	for len(p) > 0 {
		n := min(len(p), stepBytes)
		var want []byte
		if c.compare {
			want = p[:n]
		}
		if st := c.verifyStep((*buffer)[:n], want, at); st.code != Good {
			return st
		}
		p, at = p[n:], at+int64(n)
	}
	return StatusGood
}

// inSteps calls f for the command's span, cut at multiples of size bytes of the
// medium, until one is not GOOD or the context ends. A cut that is aligned so
// splits no allocation unit that the command covers.
func (c *Command) inSteps(ctx context.Context, size int64, f func(at, n int64) Status) Status {
	for done := int64(0); done < c.span; {
		if ctx.Err() != nil {
			return StatusTaskAborted
		}
		if st := c.itl.admitMedium(); st.code != Good {
			return st
		}
		at := c.offset + done
		n := min(size-at%size, c.span-done)
		if st := f(at, n); st.code != Good {
			return st
		}
		done += n
	}
	return StatusGood
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}
