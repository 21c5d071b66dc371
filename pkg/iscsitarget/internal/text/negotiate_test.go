package text

import (
	"errors"
	"strings"
	"testing"
)

// Every key, with values in, at and beyond its bounds. Ours are those of
// Defaults.
var negotiations = []struct{ key, offered, answer, discovery string }{
	{"HeaderDigest", "None", "None", "None"},
	{"HeaderDigest", "CRC32C,None", "CRC32C", "CRC32C"},
	{"HeaderDigest", "None,CRC32C", "None", "None"},
	{"HeaderDigest", "CRC32C", "CRC32C", "CRC32C"},
	{"HeaderDigest", "MD5,CRC32C,None", "CRC32C", "CRC32C"},
	{"HeaderDigest", "MD5", Reject, Reject},
	{"HeaderDigest", "", Reject, Reject},
	{"DataDigest", "None,CRC32C", "None", "None"},
	{"DataDigest", "CRC32C,None", "CRC32C", "CRC32C"},
	{"DataDigest", "none", Reject, Reject},
	{"DataDigest", "crc32c", Reject, Reject},
	{"MaxConnections", "1", "1", Irrelevant},
	{"MaxConnections", "65535", "8", Irrelevant},
	{"MaxConnections", "0", Reject, Irrelevant},
	{"MaxConnections", "65536", Reject, Irrelevant},
	{"InitialR2T", "Yes", "Yes", Irrelevant},
	{"InitialR2T", "No", "No", Irrelevant},
	{"InitialR2T", "yes", Reject, Irrelevant},
	{"InitialR2T", "", Reject, Irrelevant},
	{"ImmediateData", "Yes", "Yes", Irrelevant},
	{"ImmediateData", "No", "No", Irrelevant},
	{"ImmediateData", "Maybe", Reject, Irrelevant},
	{"MaxRecvDataSegmentLength", "512", "", ""},
	{"MaxRecvDataSegmentLength", "16777215", "", ""},
	{"MaxRecvDataSegmentLength", "511", Reject, Reject},
	{"MaxRecvDataSegmentLength", "16777216", Reject, Reject},
	{"MaxRecvDataSegmentLength", "-1", Reject, Reject},
	{"MaxRecvDataSegmentLength", "1e6", Reject, Reject},
	{"MaxBurstLength", "512", "512", Irrelevant},
	{"MaxBurstLength", "0x400", "1024", Irrelevant},
	{"MaxBurstLength", "0X400", "1024", Irrelevant},
	{"MaxBurstLength", "16777215", "1048576", Irrelevant},
	{"MaxBurstLength", "16777216", Reject, Irrelevant},
	{"MaxBurstLength", "0", Reject, Irrelevant},
	{"MaxBurstLength", "", Reject, Irrelevant},
	{"MaxBurstLength", "0x", Reject, Irrelevant},
	{"MaxBurstLength", "1_000", Reject, Irrelevant},
	{"MaxBurstLength", " 1024", Reject, Irrelevant},
	{"MaxBurstLength", "99999999999999999999", Reject, Irrelevant},
	{"FirstBurstLength", "65536", "65536", Irrelevant},
	{"FirstBurstLength", "16777215", "65536", Irrelevant},
	{"FirstBurstLength", "511", Reject, Irrelevant},
	{"MaxOutstandingR2T", "1", "1", Irrelevant},
	{"MaxOutstandingR2T", "7", "7", Irrelevant},
	{"MaxOutstandingR2T", "65535", "8", Irrelevant},
	{"MaxOutstandingR2T", "65536", Reject, Irrelevant},
	{"MaxOutstandingR2T", "0", Reject, Irrelevant},
	{"DefaultTime2Wait", "0", "2", "2"},
	{"DefaultTime2Wait", "3600", "3600", "3600"},
	{"DefaultTime2Wait", "3601", Reject, Reject},
	{"DefaultTime2Retain", "20", "20", "20"},
	{"DefaultTime2Retain", "3601", Reject, Reject},
	{"ErrorRecoveryLevel", "2", "2", "0"},
	{"ErrorRecoveryLevel", "3", Reject, Reject},
	{"DataPDUInOrder", "No", "Yes", Irrelevant},
	{"DataPDUInOrder", "Yes", "Yes", Irrelevant},
	{"DataPDUInOrder", "?", Reject, Irrelevant},
	{"DataSequenceInOrder", "No", "Yes", Irrelevant},
	{"TaskReporting", "FastAbort,RFC3720", "FastAbort", Irrelevant},
	{"TaskReporting", "RFC3720,FastAbort", "RFC3720", Irrelevant},
	{"TaskReporting", "X-new,ResponseFence", "ResponseFence", Irrelevant},
	{"TaskReporting", "fastabort", Reject, Irrelevant},
	{"iSCSIProtocolLevel", "1", "1", Irrelevant},
	{"iSCSIProtocolLevel", "2", "2", Irrelevant},
	{"iSCSIProtocolLevel", "31", "2", Irrelevant},
	{"iSCSIProtocolLevel", "0", "0", Irrelevant},
	{"iSCSIProtocolLevel", "32", Reject, Irrelevant},
	{"SendTargets", "All", Reject, Reject},
	{"TargetAddress", "192.0.2.1", Reject, Reject},
	{"TargetAlias", "x", Reject, Reject},
	{"TargetPortalGroupTag", "1", Reject, Reject},
	{"IFMarker", "Yes", "No", Irrelevant},
	{"OFMarker", "No", "No", Irrelevant},
	{"IFMarkInt", "2048~8192", Reject, Irrelevant},
	{"OFMarkInt", "2048", Reject, Irrelevant},
	{"X-com.example.key", "1", NotUnderstood, NotUnderstood},
	{"Maxburstlength", "1", NotUnderstood, NotUnderstood},
}

func TestNegotiation(t *testing.T) {
	tried := map[string]bool{}
	for _, tt := range negotiations {
		tried[tt.key] = true
		for discovery, want := range map[bool]string{false: tt.answer, true: tt.discovery} {
			n := NewNegotiator(Defaults(), discovery, false)
			if got, err := n.Answer(Pair{tt.key, tt.offered}); err != nil || got != want {
				t.Errorf("%s=%s, discovery %t: %q, %v; want %q", tt.key, tt.offered, discovery, got, err, want)
			}
			_, known := rules[tt.key]
			if _, err := n.Answer(Pair{tt.key, tt.offered}); known != errors.Is(err, ErrSyntax) {
				t.Errorf("%s a second time: %v", tt.key, err)
			}
		}
	}
	for key := range rules {
		if !tried[key] {
			t.Errorf("%s is not in the table", key)
		}
	}
}

// What is not negotiated, or was refused, has RFC 7143's default.
func TestDefaults(t *testing.T) {
	want := Params{
		MaxConnections: 1, InitialR2T: true, ImmediateData: true, MaxRecvDataSegmentLength: 256 << 10,
		MaxSendDataSegmentLength: 8192, MaxBurstLength: 262144, FirstBurstLength: 65536,
		MaxOutstandingR2T: 1, DefaultTime2Wait: 2, DefaultTime2Retain: 20, ProtocolLevel: 1,
	}
	n := NewNegotiator(Defaults(), false, false)
	if got := n.Finish(); got != want {
		t.Errorf("got %+v", got)
	}
	for _, p := range []Pair{{"MaxBurstLength", "1"}, {"FirstBurstLength", "x"}, {"InitialR2T", "x"}, {"MaxRecvDataSegmentLength", "0"}} {
		if _, err := n.Answer(p); err != nil {
			t.Error(err)
		}
	}
	if got := n.Finish(); got != want {
		t.Errorf("after refusals: %+v", got)
	}
}

func TestOutcome(t *testing.T) {
	n := NewNegotiator(Defaults(), false, false)
	for _, s := range []string{
		"InitialR2T=No", "ImmediateData=No", "MaxRecvDataSegmentLength=1000", "MaxBurstLength=4096", "FirstBurstLength=65536",
		"DefaultTime2Wait=5", "DefaultTime2Retain=60", "ErrorRecoveryLevel=2", "MaxOutstandingR2T=16", "MaxConnections=4",
	} {
		key, value, _ := strings.Cut(s, "=")
		if _, err := n.Answer(Pair{key, value}); err != nil {
			t.Error(err)
		}
	}
	want := Params{
		MaxConnections: 4, MaxRecvDataSegmentLength: 256 << 10, MaxSendDataSegmentLength: 1000, MaxBurstLength: 4096,
		FirstBurstLength: 4096, MaxOutstandingR2T: 1, ProtocolLevel: 1, DefaultTime2Wait: 5, DefaultTime2Retain: 20, ErrorRecoveryLevel: 2,
	}
	if got := n.Finish(); got != want {
		t.Errorf("got %+v", got)
	}
}

// An end that wants no digests takes None alone; one that negotiates none has
// none.
func TestDigests(t *testing.T) {
	for _, tt := range []struct {
		own           bool
		offered, want string
		outcome       bool
	}{
		{true, "CRC32C,None", "CRC32C", true},
		{true, "None,CRC32C", "None", false},
		{false, "CRC32C,None", "None", false},
		{false, "CRC32C", Reject, false},
	} {
		own := Defaults()
		own.HeaderDigest, own.DataDigest = tt.own, tt.own
		for _, key := range []string{"HeaderDigest", "DataDigest"} {
			n := NewNegotiator(own, false, false)
			got, err := n.Answer(Pair{key, tt.offered})
			if err != nil || got != tt.want {
				t.Errorf("own %t, %s=%s: %q, %v", tt.own, key, tt.offered, got, err)
			}
			if p := n.Finish(); p.HeaderDigest != (tt.outcome && key == "HeaderDigest") || p.DataDigest != (tt.outcome && key == "DataDigest") {
				t.Errorf("own %t, %s=%s: %+v", tt.own, key, tt.offered, p)
			}
		}
	}
}

func TestDeclareOnce(t *testing.T) {
	n := NewNegotiator(Defaults(), false, false)
	if got := n.Declare(); len(got) != 1 || got[0] != (Pair{"MaxRecvDataSegmentLength", "262144"}) {
		t.Errorf("got %v", got)
	}
	if got := n.Declare(); got != nil {
		t.Errorf("again: %v", got)
	}
}

// FuzzNegotiation: no value takes a parameter out of its bounds.
func FuzzNegotiation(f *testing.F) {
	for _, tt := range negotiations {
		f.Add(tt.key, tt.offered)
	}
	f.Fuzz(func(t *testing.T, key, offered string) {
		n := NewNegotiator(Defaults(), false, false)
		answer, err := n.Answer(Pair{key, offered})
		if err != nil || len(answer) > 20 {
			t.Errorf("%q, %v", answer, err)
		}
		p := n.Finish()
		if p.MaxSendDataSegmentLength < 512 || p.MaxSendDataSegmentLength >= 1<<24 || p.MaxBurstLength < 512 ||
			p.FirstBurstLength < 512 || p.FirstBurstLength > 64<<10 || p.FirstBurstLength > p.MaxBurstLength ||
			p.MaxOutstandingR2T < 1 || p.MaxOutstandingR2T > 8 || p.MaxConnections < 1 || p.MaxConnections > 8 || p.ErrorRecoveryLevel > 2 || p.DefaultTime2Wait > 3600 {
			t.Errorf("%+v", p)
		}
	})
}

// What was negotiated of how tasks are aborted is what the session has.
func TestTaskReporting(t *testing.T) {
	for offered, want := range map[string]TaskReporting{
		"FastAbort,ResponseFence,RFC3720": FastAbort, "ResponseFence,FastAbort": ResponseFence, "RFC3720": RFC3720, "no": RFC3720,
	} {
		n := NewNegotiator(Defaults(), false, false)
		if _, err := n.Answer(Pair{"TaskReporting", offered}); err != nil || n.Finish().TaskReporting != want {
			t.Errorf("%s: %v, %v", offered, n.Finish().TaskReporting, err)
		}
	}
}
