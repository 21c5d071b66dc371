package scsi

import (
	"bytes"
	"testing"
)

func TestSense(t *testing.T) {
	for _, x := range []struct {
		st                Status
		fixed, descriptor string
	}{
		{StatusGood, "", ""},
		{StatusTaskAborted, "", ""},
		{check(illegalRequest, ascInvalidOpcode),
			"70 00 05 00000000 0A 00000000 2000 00 000000", "72 05 2000 000000 00"},
		{invalidField(2, 7),
			"70 00 05 00000000 0A 00000000 2400 00 CF0002", "72 05 2400 000000 08 0206 0000 CF0002 00"},
		{invalidParameter(0x118, 3),
			"70 00 05 00000000 0A 00000000 2600 00 8B0118", "72 05 2600 000000 08 0206 0000 8B0118 00"},
		{check(mediumError, ascUnrecoveredReadError).withInfo(0x01020304),
			"F0 00 03 01020304 0A 00000000 1100 00 000000", "72 03 1100 000000 0C 000A 8000 0000000001020304"},
		{check(miscompare, ascMiscompareDuringVerify).withInfo(0x1_00000000),
			"70 00 0E 00000000 0A 00000000 1D00 00 000000", "72 0E 1D00 000000 0C 000A 8000 0000000100000000"},
		{SenseUnexpectedUnsolicitedData, "70 00 0B 00000000 0A 00000000 0C0C 00 000000", "72 0B 0C0C 000000 00"},
		{SenseNotEnoughUnsolicitedData, "70 00 0B 00000000 0A 00000000 0C0D 00 000000", "72 0B 0C0D 000000 00"},
		{SenseProtocolCRC, "70 00 0B 00000000 0A 00000000 4705 00 000000", "72 0B 4705 000000 00"},
		{SenseInternalTargetFailure, "70 00 04 00000000 0A 00000000 4400 00 000000", "72 04 4400 000000 00"},
	} {
		for descriptor, want := range map[bool]string{false: x.fixed, true: x.descriptor} {
			prefix := []byte("before")
			got := x.st.withFormat(descriptor).AppendSense(prefix)
			if !bytes.Equal(got, append(prefix, unhex(t, want)...)) {
				t.Errorf("%s, descriptor %v:\n got %x\nwant %s", text(x.st), descriptor, got[len(prefix):], want)
			}
		}
	}
}

func TestStatusCodes(t *testing.T) {
	for st, want := range map[Status]byte{
		{}: 0, StatusGood: 0, StatusBusy: 8, StatusTaskSetFull: 0x28, StatusTaskAborted: 0x40, SenseProtocolCRC: 2,
	} {
		if st.Code() != want {
			t.Errorf("%+v: %#x, want %#x", st, st.Code(), want)
		}
	}
	if StatusGood.withFormat(true) != StatusGood {
		t.Error("GOOD has a sense format")
	}
}

func TestFormatAsOfDecode(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	before := r.nexus.Decode([8]byte{}, Simple, parse(t, "28 00 00000004 00 0001 00"))
	r.unit.settings.Store(&settings{DescriptorSense: true, WriteCache: true})
	if b := before.ReadAt(make([]byte, 513), 0).AppendSense(nil); b[0] != 0x70 {
		t.Errorf("sense of a command from before: %x", b)
	}
	if _, st := r.do("FF"); st.AppendSense(nil)[0] != 0x72 {
		t.Error("D_SENSE did nothing")
	}
	r.unit.Reset()
	r.expect("6/2903", "00")
	if _, st := r.do("FF"); st.AppendSense(nil)[0] != 0x70 {
		t.Error("D_SENSE outlived a reset")
	}
}
