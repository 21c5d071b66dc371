package scsi

import (
	"bytes"
	"context"
	"testing"
)

func TestVerify(t *testing.T) {
	d := newDisk(1500, 512)
	r := newRig(t, d)
	before := bytes.Clone(d.now)
	medium := func(lba, n int) []byte { return bytes.Clone(before[lba*512 : (lba+n)*512]) }
	spoilt := medium(4, 5)
	spoilt[3*512+17] ^= 1
	r.expect("good", "2F 00 00000004 00 0005 00")
	r.expect("good", "AF 10 00000004 000005D8 00 00")
	r.expect("good", "8F 00 0000000000000004 00000005 00 00")
	r.expect("good", "2F 02 00000004 00 0005 00", medium(4, 5)...)
	r.expect("good", "8F 02 0000000000000000 000005DC 00 00", before...)
	r.expect("E/1D00 at 7", "2F 02 00000004 00 0005 00", spoilt...)
	r.expect("E/1D00 at 7", "AF 02 00000004 00000005 00 00", spoilt...)
	r.expect("E/1D00 at 7", "8F 02 0000000000000004 00000005 00 00", spoilt...)
	r.expect("good", "2F 02 00000004 00 0000 00")
	r.expect("good", "2F 00 000005DC 00 0000 00")
	r.expect("5/2100", "2F 00 000005DC 00 0001 00")
	holds(t, d, before, 0, nil)
}

func TestVerifyOneBlockRepeated(t *testing.T) {
	d := newDisk(1500, 512)
	r := newRig(t, d)
	block := pattern(512)
	r.expect("good", "93 00 0000000000000001 000005DA 00 00", block...)
	r.expect("good", "2F 06 00000001 00 05DA 00", block...)
	r.expect("E/1D00 at 1499", "8F 06 0000000000000001 000005DB 00 00", block...)
	r.expect("E/1D00 at 0", "AF 06 00000000 00000005 00 00", block...)
	r.expect("5/0E03", "2F 06 00000001 00 05DA 00", block[:511]...)
}

func TestVerifyReadsTheMedium(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, d)
	r.expect("good", "2A 00 00000004 00 0001 00", pattern(512)...)
	r.expect("good", "2F 00 00000004 00 0001 00")
	if !bytes.Equal(d.now, d.stable) {
		t.Error("what was verified is not what the medium keeps")
	}
	r.expect("good", "2A 00 00000004 00 0001 00", pattern(512)...)
	d.syncErr = errDisk
	r.expect("4/4400", "2F 02 00000004 00 0001 00", pattern(512)...)
}

func TestWriteAndVerifySeesAMiscompare(t *testing.T) {
	for cdb, want := range map[string]string{
		"2E 02 00000004 00 0003 00": "E/1D00 at 5", "2E 00 00000004 00 0003 00": "good",
	} {
		d := newDisk(64, 512)
		r := newRig(t, badDisk{d})
		r.expect(want, cdb, pattern(3*512)...)
	}
}

// badDisk reads block 5 wrongly.
type badDisk struct{ *disk }

func (d badDisk) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.disk.ReadAt(p, off)
	if at := 5*512 - off; at >= 0 && at < int64(n) {
		p[at] ^= 0x80
	}
	return n, err
}

func TestVerifyIsCancelled(t *testing.T) {
	r := newRig(t, newDisk(1500, 512))
	for _, cdb := range []string{"2F 00 00000000 00 05DC 00", "93 00 0000000000000001 00000500 00 00"} {
		c := r.nexus.Decode([8]byte{}, Simple, parse(t, cdb))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, st := c.Execute(ctx, make([]byte, c.Length)); st != StatusTaskAborted {
			t.Errorf("%s: %s", cdb, text(st))
		}
	}
}
