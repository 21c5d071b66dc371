package pdu

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// codec is a PDU type: parse reads a header into a value that headerOf turns
// into a header again.
type codec struct {
	name  string
	parse func(*BHS) any
	value any
	// golden are the header's bytes in hexadecimal.
	golden string
}

type header interface{ Header() BHS }

func parser[T header](parse func(*BHS) T) func(*BHS) any { return func(h *BHS) any { return parse(h) } }

var lun = [8]byte{0, 1, 2, 3, 4, 5, 6, 7}

var codecs = []codec{
	{"NOP-Out", parser(ParseNopOut), NopOut{true, lun, 0x11121314, 0x21222324, 0x31323334, 0x41424344},
		"40800000 00000000 0001020304050607 11121314 21222324 31323334 41424344 00000000000000000000000000000000"},
	{"SCSI Command", parser(ParseSCSICommand),
		SCSICommand{false, true, true, false, 1, lun, 0x11121314, 0x21222324, 0x31323334, 0x41424344, [16]byte{0x28, 15: 0xff}},
		"01c10000 00000000 0001020304050607 11121314 21222324 31323334 41424344 280000000000000000000000000000ff"},
	{"Task Management", parser(ParseTaskManagement), TaskManagement{true, AbortTask, lun, 0x11121314, 0x21222324, 0x31323334, 0x41424344, 0x51525354, 0x61626364},
		"42810000 00000000 0001020304050607 11121314 21222324 31323334 41424344 51525354 61626364 0000000000000000"},
	{"Login Request", parser(ParseLoginRequest), LoginRequest{true, false, 1, 3, 1, 2, ISID{0x80, 1, 2, 3, 4, 5}, 0x0a0b, 0x0c0d, 0x11121314, 0x31323334, 0x41424344},
		"43870102 00000000 800102030405 0a0b 11121314 0c0d0000 31323334 41424344 00000000000000000000000000000000"},
	{"Text Request", parser(ParseTextRequest), TextRequest{false, true, false, lun, 0x11121314, 0x21222324, 0x31323334, 0x41424344},
		"04800000 00000000 0001020304050607 11121314 21222324 31323334 41424344 00000000000000000000000000000000"},
	{"Data-Out", parser(ParseDataOut), DataOut{true, lun, 0x11121314, 0x21222324, 0x41424344, 0x51525354, 0x61626364},
		"05800000 00000000 0001020304050607 11121314 21222324 00000000 41424344 00000000 51525354 61626364 00000000"},
	{"Logout Request", parser(ParseLogoutRequest), LogoutRequest{true, LogoutForRecovery, 0x0c0d, 0x11121314, 0x31323334, 0x41424344},
		"46820000 00000000 0000000000000000 11121314 0c0d0000 31323334 41424344 00000000000000000000000000000000"},
	{"SNACK", parser(ParseSNACK), SNACK{SNACKRData, lun, 0x11121314, 0x21222324, 0x41424344, 0x51525354, 0x61626364},
		"10830000 00000000 0001020304050607 11121314 21222324 00000000 41424344 00000000 00000000 51525354 61626364"},
	{"NOP-In", parser(ParseNopIn), NopIn{lun, 0x11121314, 0x21222324},
		"20800000 00000000 0001020304050607 11121314 21222324 00000000000000000000000000000000 0000000000000000"},
	{"SCSI Response", parser(ParseSCSIResponse), SCSIResponse{1, 2, 0x11121314, 0x21222324, 0x51525354, Residual{false, true, 0x71727374}},
		"21820102 00000000 0000000000000000 11121314 21222324 00000000 00000000 00000000 51525354 00000000 71727374"},
	{"Task Management Response", parser(ParseTaskManagementResponse), TaskManagementResponse{5, [3]byte{0x21, 0x22, 0x23}, 0x11121314},
		"22800500 00000000 2122230000000000 11121314 0000000000000000000000000000000000000000 0000000000000000"},
	{"Login Response", parser(ParseLoginResponse), LoginResponse{true, false, 1, 3, ISID{0x80, 1, 2, 3, 4, 5}, 0x0a0b, 0x11121314, LoginSuccess},
		"23870000 00000000 800102030405 0a0b 11121314 00000000 00000000 00000000 00000000 0000 0000 0000000000000000"},
	{"Login Response, refused", parser(ParseLoginResponse), LoginResponse{ISID: ISID{1}, ITT: 1, Status: LoginAuthFailure},
		"23000000 00000000 010000000000 0000 00000001 00000000 00000000 00000000 00000000 0201 0000 0000000000000000"},
	{"Text Response", parser(ParseTextResponse), TextResponse{false, true, lun, 0x11121314, 0x21222324},
		"24400000 00000000 0001020304050607 11121314 21222324 00000000000000000000000000000000 0000000000000000"},
	{"Data-In", parser(ParseDataIn), DataIn{Final: true, HasStatus: true, Status: 2, ITT: 0x11121314, TTT: NoTag, DataSN: 0x51525354, BufferOffset: 0x61626364, Residual: Residual{true, false, 0x71727374}},
		"25850002 00000000 0000000000000000 11121314 ffffffff 00000000 00000000 00000000 51525354 61626364 71727374"},
	{"Data-In to be acknowledged", parser(ParseDataIn), DataIn{Final: true, Acknowledge: true, LUN: lun, ITT: 0x11121314, TTT: 0x21222324, DataSN: 0x51525354, BufferOffset: 0x61626364},
		"25c00000 00000000 0001020304050607 11121314 21222324 00000000 00000000 00000000 51525354 61626364 00000000"},
	{"Logout Response", parser(ParseLogoutResponse), LogoutResponse{2, 0x11121314, 0x0102, 0x0304},
		"26800200 00000000 0000000000000000 11121314 00000000 00000000 00000000 00000000 00000000 0102 0304 00000000"},
	{"R2T", parser(ParseR2T), R2T{lun, 0x11121314, 0x21222324, 0x51525354, 0x61626364, 0x71727374},
		"31800000 00000000 0001020304050607 11121314 21222324 00000000 00000000 00000000 51525354 61626364 71727374"},
	{"Asynchronous Message", parser(ParseAsyncMessage), AsyncMessage{[8]byte{0, 7}, AsyncDropConnection, 0x0102, 0x0304, 0x0506},
		"32800000 00000000 0007000000000000 ffffffff 00000000 00000000 00000000 00000000 0200 0102 0304 0506 00000000"},
	{"Reject", parser(ParseReject), Reject{RejectProtocolError},
		"3f800400 00000000 0000000000000000 ffffffff 0000000000000000000000000000000000000000 0000000000000000"},
}

func TestGolden(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.ReplaceAll(c.golden, " ", ""))
			if err != nil || len(want) != BHSLen {
				t.Fatalf("%d bytes, %v", len(want), err)
			}
			h := c.value.(header).Header()
			if !bytes.Equal(h[:], want) {
				t.Errorf("got  % x\nwant % x", h[:], want)
			}
			if got := c.parse(&h); !reflect.DeepEqual(got, c.value) {
				t.Errorf("parsed %+v, want %+v", got, c.value)
			}
		})
	}
}

// Whatever is parsed is what its header says: parsing that again gives the same.
func TestRoundTrip(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	for _, c := range codecs {
		for range 1000 {
			var h BHS
			_, _ = random.Read(h[:])
			once := c.parse(&h)
			again := once.(header).Header()
			if twice := c.parse(&again); !sameButStages(once, twice) {
				t.Fatalf("%s: %+v became %+v", c.name, once, twice)
			}
		}
	}
}

// sameButStages: a Login Response that refuses, or does not transit, loses what
// has no meaning then, and so does a Data-In without status.
func sameButStages(a, b any) bool {
	switch x := a.(type) {
	case LoginResponse:
		if !x.Transit {
			x.NSG = 0
		}
		if x.Status != LoginSuccess {
			x.CSG, x.NSG, x.Transit, x.Continue = 0, 0, false, false
		}
		return reflect.DeepEqual(x, b)
	case DataIn:
		if !x.HasStatus {
			x.Status, x.Residual = 0, Residual{}
		}
		if !x.Acknowledge {
			x.LUN, x.TTT = [8]byte{}, NoTag
		}
		return reflect.DeepEqual(x, b)
	}
	return reflect.DeepEqual(a, b)
}

func TestFields(t *testing.T) {
	var h BHS
	h[0], h[1], h[4] = 0xc5, 0x80, 3
	h.SetDataLen(0x010203)
	h.SetStatSN(0x0a0b0c0d)
	h.SetWindow(0x01020304, 0x05060708)
	exp, most := h.Window()
	if h.Opcode() != OpDataOut || !h.Immediate() || !h.Final() || h.AHSLen() != 12 || h.DataLen() != 0x010203 ||
		h.StatSN() != 0x0a0b0c0d || exp != 0x01020304 || most != 0x05060708 || h.LUN() != [8]byte{} {
		t.Errorf("% x", h[:])
	}
	h.SetDataLen(1<<24 - 1)
	if h.DataLen() != 1<<24-1 || h.AHSLen() != 12 {
		t.Errorf("% x", h[:])
	}
}

func TestPad(t *testing.T) {
	for n, want := range []int{0, 3, 2, 1, 0, 3} {
		if Pad(n) != want {
			t.Errorf("Pad(%d) = %d", n, Pad(n))
		}
	}
}

func TestResidualOf(t *testing.T) {
	for _, tt := range []struct {
		actual   int64
		expected uint32
		want     Residual
	}{
		{0, 0, Residual{}}, {512, 512, Residual{}}, {512, 0, Residual{true, false, 512}},
		{0, 0xffffffff, Residual{false, true, 0xffffffff}}, {1 << 40, 1, Residual{true, false, 0xffffffff}},
	} {
		if got := ResidualOf(tt.actual, tt.expected); got != tt.want {
			t.Errorf("%d of %d: %+v", tt.actual, tt.expected, got)
		}
	}
}
