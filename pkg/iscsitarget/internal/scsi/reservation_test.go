package scsi

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// keeper is a disk that keeps a state, as long as err is nil.
type keeper struct {
	*disk
	state   json.RawMessage
	err     error
	keeping func() // called before each SetState
	sets    int
}

func newKeeper() *keeper { return &keeper{disk: newDisk(64, 512)} }

func (k *keeper) State() (json.RawMessage, error) { return k.state, nil }

func (k *keeper) SetState(s json.RawMessage) error {
	if k.keeping != nil {
		k.keeping()
	}
	k.sets++
	if k.err == nil {
		k.state = s
	}
	return k.err
}

func (k *keeper) StateLocation() string { return "/state/unit.json" }

// The nexuses of a ports rig: two ports of one initiator and one of another.
const (
	portA = iota
	portB
	portC
	portCount
)

var portNames = [portCount]string{"iqn.a,i,0x000000000001", "iqn.a,i,0x000000000002", "iqn.c,i,0x0000000000aa"}

// ports is a unit with three I_T nexuses.
type ports struct {
	*rig
	nexuses [portCount]*Nexus
}

func newPorts(t testing.TB, dev blockdev.Device) *ports {
	t.Helper()
	p := &ports{rig: newLonelyRig(t, dev)}
	for i := range p.nexuses {
		p.login(i)
	}
	return p
}

func (p *ports) login(who int) {
	p.Helper()
	p.nexuses[who] = p.attach(NexusConfig{InitiatorPort: portNames[who], TargetPort: "iqn.t,t,0x0001", TPGT: 1})
}

// run runs a command of a nexus that ends with a status.
func (p *ports) run(who int, want, cdb string, params ...byte) {
	p.Helper()
	if _, st := run(p, p.nexuses[who], cdb, params); text(st) != want {
		p.Errorf("%c: %s: %s, want %s", 'A'+who, cdb, text(st), want)
	}
}

// reads runs a command of a nexus that gives data.
func (p *ports) reads(who int, cdb, want string) {
	p.Helper()
	data, st := run(p, p.nexuses[who], cdb, nil)
	if st.code != Good || fmt.Sprintf("%x", data) != fmt.Sprintf("%x", unhex(p, want)) {
		p.Errorf("%c: %s: %s\n got %x\nwant %x", 'A'+who, cdb, text(st), data, unhex(p, want))
	}
}

const (
	write = "2A 00 00000001 00 0001 00"
	read  = "28 00 00000001 00 0001 00"
	ready = "00"
)

// The flags of byte 20.
const (
	specPorts = 1 << 3
	allPorts  = 1 << 2
	aptpl     = 1 << 0
)

func outList(key, serviceKey uint64, flags byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, key)
	b = binary.BigEndian.AppendUint64(b, serviceKey)
	return append(b, 0, 0, 0, 0, flags, 0, 0, 0)
}

// out runs PERSISTENT RESERVE OUT.
func (p *ports) out(who int, want string, action byte, kind reservationType, key, serviceKey uint64, flags ...byte) {
	p.Helper()
	list := outList(key, serviceKey, append(flags, 0)[0])
	p.run(who, want, fmt.Sprintf("5F %02X %02X 0000 %08X 00", action, byte(kind), len(list)), list...)
}

// register registers every nexus by its own key: 0xA, 0xB and 0xC.
func (p *ports) register() {
	p.Helper()
	for who := range p.nexuses {
		p.out(who, "good", actionRegister, 0, 0, keyOf(who))
	}
}

func keyOf(who int) uint64 { return uint64(0xA + who) }

// attentions checks which unit attention each nexus has pending, and takes it:
// "-" for none.
func (p *ports) attentions(want ...string) {
	p.Helper()
	for who, n := range p.nexuses {
		got := "-"
		if a, pending := (*n.luns.Load())[0].attentions.take(); pending {
			got = text(a.status())
		}
		if got != want[who] {
			p.Errorf("%c has the unit attention %s, want %s", 'A'+who, got, want[who])
		}
	}
}

// keys checks READ KEYS: PRGENERATION, then the keys.
func (p *ports) keys(generation uint32, keys ...uint64) {
	p.Helper()
	want := fmt.Sprintf("%08x%08x", generation, 8*len(keys))
	for _, k := range keys {
		want += fmt.Sprintf("%016x", k)
	}
	p.reads(portC, "5E 00 00 00000000 0100 00", want)
}

// held checks READ RESERVATION; type 0 is no reservation.
func (p *ports) held(kind reservationType, key uint64) {
	p.Helper()
	s := p.unit.reservations.Load()
	want := fmt.Sprintf("%08x00000000", s.generation)
	if kind != noReservation {
		want = fmt.Sprintf("%08x00000010 %016x 00000000 00 %02x 0000", s.generation, key, byte(kind))
	}
	p.reads(portC, "5E 01 00 00000000 0100 00", want)
}

// allowances are the standards' tables: Write Exclusive and Exclusive Access of
// another nexus; Registrants Only and All Registrants of another, for one that is
// registered; Write Exclusive and Exclusive Access of those kinds, for one that
// is not; RESERVE of another. A is allowed, C a conflict.
var allowances = map[string]string{
	"TEST UNIT READY": "AA A AA C",
	"REQUEST SENSE":   "AA A AA A",
	"INQUIRY":         "AA A AA A",
	"REPORT LUNS":     "AA A AA A",

	"MODE SELECT(6)":   "CC A CC C",
	"MODE SELECT(10)":  "CC A CC C",
	"MODE SENSE(6)":    "AC A AC C",
	"MODE SENSE(10)":   "AC A AC C",
	"SEND DIAGNOSTIC":  "CC A CC C",
	"SET TIMESTAMP":    "CC A CC C",
	"REPORT TIMESTAMP": "AA A AA C",

	"REPORT SUPPORTED OPERATION CODES":           "AC A AC C",
	"REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS": "AC A AC C",

	"READ CAPACITY(10)": "AA A AA A",
	"READ CAPACITY(16)": "AA A AA A",

	"READ(6)":              "AC A AC C",
	"READ(10)":             "AC A AC C",
	"READ(12)":             "AC A AC C",
	"READ(16)":             "AC A AC C",
	"VERIFY(10)":           "AC A AC C",
	"VERIFY(12)":           "AC A AC C",
	"VERIFY(16)":           "AC A AC C",
	"PRE-FETCH(10)":        "AC A AC C",
	"PRE-FETCH(16)":        "AC A AC C",
	"READ DEFECT DATA(10)": "AC A AC C",
	"READ DEFECT DATA(12)": "AC A AC C",
	"GET LBA STATUS":       "AC A AC C",

	"WRITE(6)":              "CC A CC C",
	"WRITE(10)":             "CC A CC C",
	"WRITE(12)":             "CC A CC C",
	"WRITE(16)":             "CC A CC C",
	"WRITE ATOMIC(16)":      "CC A CC C",
	"WRITE AND VERIFY(10)":  "CC A CC C",
	"WRITE AND VERIFY(12)":  "CC A CC C",
	"WRITE AND VERIFY(16)":  "CC A CC C",
	"WRITE SAME(10)":        "CC A CC C",
	"WRITE SAME(16)":        "CC A CC C",
	"UNMAP":                 "CC A CC C",
	"COMPARE AND WRITE":     "CC A CC C",
	"ORWRITE(16)":           "CC A CC C",
	"SYNCHRONIZE CACHE(10)": "CC A CC C",
	"SYNCHRONIZE CACHE(16)": "CC A CC C",

	"FORMAT UNIT":                  "CC A CC C",
	"SANITIZE":                     "CC A CC C",
	"PREVENT ALLOW MEDIUM REMOVAL": "CC A CC C",
	"LOG SENSE":                    "AA A AA C",
	"REPORT TARGET PORT GROUPS":    "AA A AA C",
	"SET TARGET PORT GROUPS":       "CC A CC C",

	"EXTENDED COPY(LID1)":                "CC A CC C",
	"EXTENDED COPY(LID4)":                "CC A CC C",
	"COPY OPERATION ABORT":               "CC A CC C",
	"RECEIVE COPY STATUS(LID1)":          "CC A CC C",
	"RECEIVE COPY DATA(LID1)":            "CC A CC C",
	"RECEIVE COPY OPERATING PARAMETERS":  "CC A CC C",
	"RECEIVE COPY FAILURE DETAILS(LID1)": "CC A CC C",
	"RECEIVE COPY STATUS(LID4)":          "CC A CC C",
	"POPULATE TOKEN":                     "CC A CC C",
	"WRITE USING TOKEN":                  "CC A CC C",
	"RECEIVE ROD TOKEN INFORMATION":      "CC A CC C",
	"REPORT ALL ROD TOKENS":              "CC A CC C",

	"START STOP UNIT":       "CC A CC C",
	"START STOP UNIT START": "AA A AA C",

	"PERSISTENT RESERVE IN, READ KEYS":           "AA A AA C",
	"PERSISTENT RESERVE IN, READ RESERVATION":    "AA A AA C",
	"PERSISTENT RESERVE IN, REPORT CAPABILITIES": "AA A AA C",
	"PERSISTENT RESERVE IN, READ FULL STATUS":    "AA A AA C",
}

// ownRules are the commands that look at the reservations when they execute:
// TestReserve and TestReserveOutUnderReservation have them.
var ownRules = map[byte]bool{0x16: true, 0x17: true, 0x56: true, 0x57: true, 0x5F: true}

// allDisk offers every command.
type allDisk struct {
	thinDisk
	atomicWrites
}

func (d allDisk) Mapped(off int64) (bool, int64, error) { return true, int64(len(d.now)) - off, nil }

// TestEveryCommandUnderReservations goes through the whole command set.
func TestEveryCommandUnderReservations(t *testing.T) {
	for i := range commandSet {
		op := &commandSet[i]
		if ownRules[op.opcode] != (op.allowed == byOwnRules) {
			t.Errorf("%s: allowance %d", op.name, op.allowed)
		}
		if ownRules[op.opcode] {
			continue
		}
		if allowances[op.name] == "" {
			t.Errorf("no row of allowances says how %s fares under a reservation", op.name)
			continue
		}
		cdb := make([]byte, 16)
		cdb[0], cdb[1] = op.opcode, byte(max(op.action, 0))
		checkAllowance(t, op.name, cdb)
	}
	checkAllowance(t, "START STOP UNIT START", parse(t, "1B 00 00 00 01 00"))
}

func checkAllowance(t *testing.T, name string, cdb []byte) {
	t.Helper()
	row := allowances[name]
	for _, c := range []struct {
		what   string
		column int
		types  []reservationType
		who    int
	}{
		{"another's Write Exclusive", 0, []reservationType{writeExclusive}, portB},
		{"another's Write Exclusive, not registered", 0, []reservationType{writeExclusive}, portC},
		{"another's Exclusive Access", 1, []reservationType{exclusiveAccess}, portB},
		{"another's Exclusive Access, not registered", 1, []reservationType{exclusiveAccess}, portC},
		{"registered", 3, []reservationType{writeExclusiveRegistrants, exclusiveAccessRegistrants, writeExclusiveAll, exclusiveAccessAll}, portB},
		{"not registered, Write Exclusive", 5, []reservationType{writeExclusiveRegistrants, writeExclusiveAll}, portC},
		{"not registered, Exclusive Access", 6, []reservationType{exclusiveAccessRegistrants, exclusiveAccessAll}, portC},
		{"RESERVE", 8, nil, portC},
	} {
		for _, kind := range append(c.types, noReservation)[:max(len(c.types), 1)] {
			p := newPorts(t, allDisk{thinDisk: thinDisk{newDisk(64, 512)}})
			if kind == noReservation {
				p.run(portA, "good", "16")
			} else {
				p.out(portA, "good", actionRegister, 0, 0, 0xA)
				p.out(portB, "good", actionRegister, 0, 0, 0xB)
				p.out(portA, "good", actionReserve, kind, 0xA, 0)
			}
			st := p.nexuses[c.who].Decode([8]byte{}, Simple, cdb).Status
			if (text(st) == "conflict") != (row[c.column] == 'C') {
				t.Errorf("%s, %s (type %d): %s, want %c", name, c.what, kind, text(st), row[c.column])
			}
			holder := p.nexuses[portA].Decode([8]byte{}, Simple, cdb).Status
			if in := cdb[0] == 0x5E && kind == noReservation; (text(holder) == "conflict") != in {
				t.Errorf("%s, type %d: the holder gets %s", name, kind, text(holder))
			}
		}
	}
}

// TestConflictBeforeMedium: a unit attention comes before a conflict, and a
// conflict before what is wrong with the unit or the CDB.
func TestConflictBeforeMedium(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.run(portA, "good", "16")
	p.unit.CapacityChanged()
	p.run(portC, "6/2A09", write)
	p.unit.power.Store(powerStopped)
	p.run(portC, "conflict", write)
	p.run(portC, "conflict", "2A 00 FFFFFFFF 00 0001 00")
	p.run(portC, "5/2000", "FF")
}

// TestConflictAllocatesNothing: it is asked for every command.
func TestConflictAllocatesNothing(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.register()
	p.out(portA, "good", actionReserve, exclusiveAccessRegistrants, 0xA, 0)
	cdb := parse(t, read)
	if n := testing.AllocsPerRun(100, func() { p.nexuses[portB].Decode([8]byte{}, Simple, cdb) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
