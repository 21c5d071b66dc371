package scsi

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"
)

func TestSanitize(t *testing.T) {
	for _, x := range []struct {
		name, cdb, params string
		want              func(block int) []byte
	}{
		{"block erase", "48 02 0000000000 0000 00", "", func(n int) []byte { return make([]byte, n) }},
		{"format", "04 00 000000 00", "", func(n int) []byte { return make([]byte, n) }},
		{"format with header", "04 18 000000 00", "00000000", func(n int) []byte { return make([]byte, n) }},
		{"overwrite", "48 01 0000000000 0007 00", "01 00 0003 A1B2C3", func(n int) []byte {
			return bytes.Repeat([]byte{0xA1, 0xB2, 0xC3}, n)[:n]
		}},
		{"twice, inverted", "48 01 0000000000 0005 00", "82 00 0001 0F", func(n int) []byte { return bytes.Repeat([]byte{0x0F}, n) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := newDisk(64, 512)
			r := newRig(t, mappedDisk{thinDisk{d}})
			r.expect("good", x.cdb, unhex(t, x.params)...)
			for at := 0; at < len(d.now); at += 512 {
				if !bytes.Equal(d.stable[at:at+512], x.want(512)) {
					t.Fatalf("block %d holds %x... on stable storage", at/512, d.stable[at:at+8])
				}
			}
			r.expect("good", "00")
		})
	}
}

func TestSanitizeRefusals(t *testing.T) {
	d := newDisk(64, 512)
	before := bytes.Clone(d.now)
	r := newRig(t, d)
	for params, want := range map[string]string{
		"01 00 0002 A1":                  "5/2600 param 2 bit 7",
		"01 00 0000 A1":                  "5/2600 param 2 bit 7",
		"00 00 0001 A1":                  "5/2600 param 0 bit 4",
		"21 00 0001 A1":                  "5/2600 param 0 bit 6",
		"01 00 0201" + zeros(512) + "00": "5/2400 byte 7 bit 7",
		"01 00 0000":                     "5/2400 byte 7 bit 7",
	} {
		b := unhex(t, params)
		r.expect(want, fmt.Sprintf("48 01 0000000000 %04X 00", min(len(b), 517)), b...)
	}
	r.expect("5/2400 byte 1 bit 4", "48 03 0000000000 0000 00") // cryptographic erase
	r.expect("5/2400 byte 7 bit 7", "48 02 0000000000 0001 00")
	r.expect("5/2400 byte 7 bit 7", "48 1F 0000000000 0001 00")
	r.expect("5/2400 byte 2 bit 7", "48 1F 8000000000 0000 00")
	for at := 2; at < 7; at++ {
		cdb := parse(t, "48 02 0000000000 0000 00")
		cdb[at] = byte(at)
		r.expect(fmt.Sprintf("5/2400 byte %d bit %d", at, at/4+1), fmt.Sprintf("%X", cdb))
	}
	r.expect("5/2400 byte 1 bit 6", "48 42 0000000000 0000 00")
	r.expect("5/2400 byte 1 bit 6", "48 41 0000000000 0005 00", unhex(t, "01 00 0001 A1")...)
	r.expect("good", "48 1F 0000000000 0000 00")
	r.expect("5/2400 byte 1 bit 7", "04 40 000000 00")
	r.expect("5/2600 param 2 bit 7", "04 10 000000 00", unhex(t, "00000001")...)
	r.expect("5/2600 param 4 bit 7", "04 30 000000 00", unhex(t, "00000000 00000008")...)
	r.expect("5/2600 param 3 bit 7", "04 30 000000 00", unhex(t, "00000001 00000000")...)
	r.expect("5/2600 param 0 bit 2", "04 10 000000 00", unhex(t, "01000000")...)
	ro := newRig(t, d, readOnly)
	ro.expect("7/2700", "48 02 0000000000 0000 00")
	ro.expect("7/2700", "04 00 000000 00")
	holds(t, d, before, 0, nil)
}

// TestSanitizeInProgress: the answer is there at once; until the end everything
// that looks at the medium is NOT READY with the progress, through a reset too;
// a write that was decoded before is refused with its data.
func TestSanitizeInProgress(t *testing.T) {
	for _, x := range []struct{ cdb, params, busy string }{
		{"48 82 0000000000 0000 00", "", "041B"}, {"04 10 000000 00", "00020000", "0404"},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newDisk(64, 512)
			gate := make(chan struct{})
			d.writing = func() { <-gate }
			r := newRig(t, d)
			write := r.nexus.Decode([8]byte{}, Simple, parse(t, "2A 00 00000000 00 0001 00"))
			r.expect("good", x.cdb, unhex(t, x.params)...)
			synctest.Wait()
			for _, cdb := range []string{"00", "28 00 00000000 00 0001 00", "1A 00 08 00 FF 00", "25", "35", x.cdb} {
				if _, st := r.do(cdb, unhex(t, x.params)...); text(st)[:6] != "2/"+x.busy {
					t.Errorf("%s: %s", cdb, text(st))
				}
			}
			r.golden("03 01 00 00 FC 00", "72 02 "+x.busy+" 000000 08 02 06 0000 80 0000 00")
			if _, st := r.do("12 00 00 00 24 00"); st.code != Good {
				t.Errorf("INQUIRY: %s", text(st))
			}
			if st := write.WriteAt(pattern(512), 0); text(st)[:6] != "2/"+x.busy {
				t.Errorf("a write from before: %s", text(st))
			}
			r.unit.Reset()
			r.expect("6/2903", "00")
			close(gate)
			synctest.Wait()
			r.expect("good", "00")
			if !isZero(d.stable) {
				t.Error("not all is zero")
			}
		})
	}
}

// TestSanitizeAborted: the command ends, what it began goes on.
func TestSanitizeAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(64, 512)
		gate := make(chan struct{})
		d.writing = func() { <-gate }
		r := newRig(t, d)
		ctx, cancel := context.WithCancel(t.Context())
		c := r.nexus.Decode([8]byte{}, Simple, parse(t, "48 02 0000000000 0000 00"))
		ended := make(chan Status)
		go func() {
			_, st := c.Execute(ctx, nil)
			ended <- st
		}()
		synctest.Wait()
		cancel()
		if st := <-ended; text(st) != "aborted" {
			t.Errorf("%s", text(st))
		}
		if _, st := r.do("00"); text(st)[:6] != "2/041B" {
			t.Errorf("afterwards: %s", text(st))
		}
		close(gate)
		synctest.Wait()
		if !isZero(d.stable) {
			t.Error("not all is zero")
		}
	})
}

// TestSanitizeFails: the unit stays unusable until a SANITIZE ends well, or EXIT
// FAILURE MODE where that was allowed.
func TestSanitizeFails(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, keptDisk{d})
	d.writeErr = errDisk
	r.expect("3/3103", "48 02 0000000000 0000 00")
	r.expect("3/3103", "28 00 00000000 00 0001 00")
	r.expect("3/3103", "48 1F 0000000000 0000 00")
	r = newRig(t, keptDisk{d}) // a restart
	r.expect("3/3103", "28 00 00000000 00 0001 00")
	r.expect("3/3103", "48 22 0000000000 0000 00")
	r.expect("good", "48 1F 0000000000 0000 00")
	if _, st := r.do("28 00 00000000 00 0001 00"); st.code != Good {
		t.Errorf("after EXIT FAILURE MODE: %s", text(st))
	}
	r.expect("3/3103", "48 02 0000000000 0000 00")
	d.writeErr = nil
	r.expect("good", "48 02 0000000000 0000 00")
	r = newRig(t, keptDisk{d})
	r.golden("28 00 00000000 00 0001 00", "00")
	d.writeErr = errDisk
	r.expect("3/3101", "04 00 000000 00")
}

// TestSanitizeGoesOn: the process ends in the middle, and the next one does the
// rest before it serves anything.
func TestSanitizeGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(64, 512)
		gate := make(chan struct{})
		d.writing = func() { <-gate }
		r := newRig(t, keptDisk{d})
		r.expect("good", "48 81 0000000000 0005 00", unhex(t, "8A 00 0001 5A")...)
		synctest.Wait()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = r.unit.Close()
		}()
		synctest.Wait()
		gate <- struct{}{} // the write under way
		<-ended
		if bytes.Equal(d.stable, bytes.Repeat([]byte{0x5A}, len(d.stable))) {
			t.Fatal("it is over already")
		}
		r = newRig(t, keptDisk{d})
		if _, st := r.do("00"); text(st)[:6] != "2/041B" {
			t.Errorf("after a restart: %s", text(st))
		}
		close(gate)
		synctest.Wait()
		r.expect("good", "00")
		if !bytes.Equal(d.stable, bytes.Repeat([]byte{0x5A}, len(d.stable))) {
			t.Error("the rest was not overwritten")
		}
	})
}
