package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

func tokenCDB(action byte, id uint32, length int) string {
	return fmt.Sprintf("83 %02X 00000000 %08X %08X 00 00", action, id, length)
}

// rangeList is pairs of LBA and number of blocks as block device range
// descriptors, with their length before them.
func rangeList(pairs ...uint64) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(pairs)*8))
	for i := 0; i < len(pairs); i += 2 {
		b = binary.BigEndian.AppendUint64(b, pairs[i])
		b = binary.BigEndian.AppendUint32(b, uint32(pairs[i+1]))
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

func withDataLength(b []byte) []byte {
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return b
}

// populateList is POPULATE TOKEN's parameter list; ROD type 0 asks for none.
func populateList(timeout, rod uint32, pairs ...uint64) []byte {
	b := make([]byte, 14)
	if rod != 0 {
		b[2] = 1 << 1
	}
	binary.BigEndian.PutUint32(b[4:], timeout)
	binary.BigEndian.PutUint32(b[8:], rod)
	return withDataLength(append(b, rangeList(pairs...)...))
}

// writeTokenList is WRITE USING TOKEN's.
func writeTokenList(flags byte, offset uint64, token []byte, pairs ...uint64) []byte {
	b := make([]byte, 534)
	b[2] = flags
	binary.BigEndian.PutUint64(b[8:], offset)
	copy(b[16:], token)
	return withDataLength(append(b, rangeList(pairs...)...))
}

// populate makes a token of LUN 0 and returns it.
func (r *rig) populate(pairs ...uint64) []byte {
	r.Helper()
	list := populateList(0, 0, pairs...)
	r.expect("good", tokenCDB(0x10, 1, len(list)), list...)
	info, st := r.do(results4CDB(0x84, 0x07, 1, 4096))
	if st.code != Good || len(info) != 38+rodTokenBytes {
		r.Fatalf("RECEIVE ROD TOKEN INFORMATION: %s, %d bytes", text(st), len(info))
	}
	return info[38:]
}

// useToken writes to LUN 1 with a token.
func (r *copyRig) useToken(want string, flags byte, offset uint64, token []byte, pairs ...uint64) {
	r.Helper()
	list := writeTokenList(flags, offset, token, pairs...)
	if _, st := r.doOn(1, tokenCDB(0x11, 2, len(list)), list...); text(st) != want {
		r.Errorf("WRITE USING TOKEN: %s, want %s", text(st), want)
	}
}

func TestToken(t *testing.T) {
	for kind := range devices(anyDisk) {
		t.Run(kind, func(t *testing.T) {
			a, b := newDisk(1500, 512), newDisk(1500, 512)
			source := bytes.Clone(a.now)
			copy(b.now, pattern(len(b.now)))
			want := bytes.Clone(b.now)
			r := newCopyRig(t, devices(a)[kind], devices(b)[kind])
			token := r.populate(10, 4, 0, 0, 700, 600, 2, 1)
			var rod []byte
			for _, e := range [][2]int{{10, 4}, {700, 600}, {2, 1}} {
				rod = append(rod, source[e[0]*512:(e[0]+e[1])*512]...)
			}
			r.useToken("good", 0, 0, token, 100, 605)
			copy(want[100*512:], rod)
			r.useToken("good", 0, 3, token, 0, 3, 90, 0, 1400, 50)
			copy(want[:3*512], rod[3*512:])
			copy(want[1400*512:1450*512], rod[6*512:])
			r.useToken("good", 0, 605, token, 5, 0) // nothing, from the end
			holds(t, b, want, 0, nil)
			holds(t, a, source, 0, nil)
		})
	}
}

func TestTokenInformation(t *testing.T) {
	r := newCopyRig(t, thinDisk{newDisk(64, 512)}, newDisk(64, 512))
	list := populateList(600, rodAnyPointInTime, 10, 4, 0, 2)
	r.expect("good", tokenCDB(0x10, 0x01020304, len(list)), list...)
	info, st := r.do(results4CDB(0x84, 0x07, 0x01020304, 4096))
	want := unhex(t, `00000222 10 01 0000 FFFFFFFF 00 00 00 F1 0000000000000006 0000 000000000000 00000202 0000
		00800001 0000 01F8 0000000000000001
		E4000000 01030008 3123456789ABCDEF 000000000000000000000000 00000200
		0000000000000000 0000000000000C00`+fmt.Sprintf("%064X", 0)+"00000200 0003 C000")
	if st.code != Good || len(info) != 550 || !bytes.Equal(info[:len(want)], want) {
		t.Errorf("%s\n got %x\nwant %x", text(st), info[:min(len(info), len(want))], want)
	}
	r.golden("84 08 0000000000000000 00001000 00 00", "00000064 00000000"+fmt.Sprintf("%X", info[38:38+96]))
	if secret := info[38+rodSecretAt:]; bytes.Count(secret, []byte{0}) > 16 {
		t.Errorf("the token can be guessed: %x", secret)
	}
	again := r.populate(10, 4, 0, 2)
	if bytes.Equal(again[rodSecretAt:], info[38+rodSecretAt:]) {
		t.Error("two tokens share their secret")
	}
	r.useToken("good", 0, 0, again, 20, 6)
	if data, st := r.doOn(1, results4CDB(0x84, 0x07, 2, 4096)); st.code != Good || !bytes.Equal(data,
		unhex(t, "00000020 11 01 0000 FFFFFFFF 00 00 00 F1 0000000000000006 0000 000000000000 00000000")) {
		t.Errorf("%s, %x", text(st), data)
	}
	r.useToken("5/2304", 0, 0, tokenOfType(rodChangeCancels), 20, 6)
	if data, _ := r.doOn(1, results4CDB(0x84, 0x07, 2, 4096)); data[5] != copyFailed || data[12] != CheckCondition || len(data) != 54 {
		t.Errorf("after a failure: %x", data)
	}
	r.expect("5/2400 byte 2 bit 7", results4CDB(0x84, 0x07, 99, 4096))
	if data, _ := r.do("84 08 0000000000000000 00000010 00 00"); len(data) != 16 {
		t.Errorf("%d bytes, not cut to the allocation length", len(data))
	}
}

// tokenOfType is a token of a type with nothing else right but its length.
func tokenOfType(rod uint32) []byte {
	b := make([]byte, rodTokenBytes)
	binary.BigEndian.PutUint32(b, rod)
	binary.BigEndian.PutUint16(b[6:], rodTokenLength)
	return b
}

// wholeDisk unmaps and writes stably, for every way to change a medium.
type wholeDisk struct {
	thinDisk
	sync syncDisk
}

func (d wholeDisk) WriteAtSync(p []byte, off int64) error { return d.sync.WriteAtSync(p, off) }

// Whatever changes a block that a token stands for cancels it; what changes other
// blocks does not.
func TestTokenIsCancelledByAChange(t *testing.T) {
	same := func(p []byte) func(int) []byte { return func(int) []byte { return p } }
	for _, x := range []struct {
		name, cdb string // with the LBA for %
		params    func(lba int) []byte
	}{
		{"WRITE(6)", "0A %06X 01 00", same(pattern(512))},
		{"WRITE(10)", "2A 00 %08X 00 0001 00", same(pattern(512))},
		{"WRITE(10) with FUA", "2A 08 %08X 00 0001 00", same(pattern(512))},
		{"WRITE(16)", "8A 00 %016X 00000001 00 00", same(pattern(512))},
		{"WRITE AND VERIFY(10)", "2E 02 %08X 00 0001 00", same(pattern(512))},
		{"ORWRITE(16)", "8B 00 %016X 00000001 00 00", same(pattern(512))},
		{"WRITE SAME(10)", "41 00 %08X 00 0001 00", same(pattern(512))},
		{"WRITE SAME(16) with UNMAP", "93 08 %016X 00000001 00 00", same(make([]byte, 512))},
		{"UNMAP", "42 00 00000000 00 0018 00#%d", func(lba int) []byte { return unmapParams(uint64(lba), 1) }},
		{"EXTENDED COPY", "83 00 0000000000000000 0000002C 00 00#%d",
			func(lba int) []byte { return list1(7, 0, nil, blockToBlock(0, 0xFFFF, 0xFFFF, 1, 50, uint64(lba))) }},
		{"WRITE USING TOKEN", "83 11 00000000 00000009 00000228 00 00#%d",
			func(lba int) []byte { return writeTokenList(0, 0, tokenOfType(rodBlockDeviceZero), uint64(lba), 1) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			for _, lba := range []struct {
				at   int
				want string
			}{{9, "good"}, {10, "5/2308"}, {13, "5/2308"}, {14, "good"}, {19, "good"}, {20, "5/2308"}} {
				d := newDisk(64, 512)
				r := newCopyRig(t, wholeDisk{thinDisk{d}, syncDisk{d}}, newDisk(64, 512))
				token := r.populate(10, 4, 20, 1)
				cdb, _, _ := bytes.Cut(fmt.Appendf(nil, x.cdb, lba.at), []byte("#"))
				if _, st := r.do(string(cdb), x.params(lba.at)...); st.code != Good {
					t.Fatal(text(st))
				}
				r.useToken(lba.want, 0, 0, token, 0, 5)
				if alive := r.unit.tokens.alive.Load(); alive != map[string]int32{"good": 1}[lba.want] {
					t.Errorf("%d tokens are alive", alive)
				}
			}
		})
	}
	r := newCopyRig(t, newDisk(64, 512), newDisk(64, 512))
	token := r.populate(10, 4)
	swap := append(bytes.Clone(r.unit.device.(*disk).now[10*512:11*512]), pattern(512)...)
	r.expect("good", "89 00 000000000000000A 000000 01 00 00", swap...) // COMPARE AND WRITE
	r.useToken("5/2308", 0, 0, token, 0, 4)
}

// A change while the token is being used is found before the answer.
func TestTokenIsCancelledWhileInUse(t *testing.T) {
	a, b := newDisk(64, 512), newDisk(64, 512)
	r := newCopyRig(t, a, b)
	token := r.populate(10, 4)
	b.writing = func() { r.expect("good", "2A 00 0000000D 00 0001 00", pattern(512)...) }
	r.useToken("5/2308", 0, 0, token, 0, 4)
	// So is one that the copy itself makes.
	token = r.populate(10, 4)
	b.writing = nil
	list := writeTokenList(0, 0, token, 12, 4)
	r.expect("5/2308", tokenCDB(0x11, 3, len(list)), list...)
}

// What a unit shows after a recovery may be older than the token.
func TestTokenOfARecoveredDevice(t *testing.T) {
	m, state := newStickyMachine(t)
	m.on(m.nexus, "good", writeOne)
	token := m.populate(10, 4)
	m.disk.syncErr = errDisk
	m.on(m.nexus, "4/4400", syncAll)
	m.nexus = m.stage("a", 2)
	if state.recovers != 1 {
		t.Fatalf("recovered %d times", state.recovers)
	}
	list := writeTokenList(0, 0, token, 30, 4)
	m.expect("5/2308", tokenCDB(0x11, 3, len(list)), list...)
}

func TestTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newCopyRig(t, newDisk(64, 512), newDisk(64, 512))
		token := r.populate(10, 4)
		for range 3 { // a use begins the time anew
			<-time.After(defaultTokenTimeout - time.Second)
			r.useToken("good", 0, 0, token, 0, 4)
		}
		<-time.After(defaultTokenTimeout)
		r.useToken("5/2307", 0, 0, token, 0, 4)
		r.golden("84 08 0000000000000000 00001000 00 00", "00000004 00000000")
		if alive := r.unit.tokens.alive.Load(); alive != 0 {
			t.Errorf("%d tokens are alive", alive)
		}
	})
}

func TestTokenBudgets(t *testing.T) {
	r := newCopyRig(t, newDisk(64, 512), newDisk(64, 512))
	list := populateList(0, 0, 10, 4)
	full := func() {
		t.Helper()
		for range maxNexusTokens {
			r.expect("good", tokenCDB(0x10, 1, len(list)), list...)
		}
		r.expect("5/550D", tokenCDB(0x10, 1, len(list)), list...)
	}
	token := r.populate(10, 4)
	r.useToken("good", 2, 0, token, 0, 4)
	r.useToken("5/2309", 0, 0, token, 0, 4)
	full()
	first := r.nexus
	for range maxTokens/maxNexusTokens - 1 { // the deleted one made room
		r.nexus = r.attach(NexusConfig{})
		full()
	}
	r.nexus = r.attach(NexusConfig{})
	r.expect("5/550D", tokenCDB(0x10, 1, len(list)), list...)
	r.expect("good", "2A 00 0000000A 00 0001 00", pattern(512)...) // cancels them all
	full()
	r.nexus = first
	full()
	if n := len(r.unit.tokens.all); n != maxTokens {
		t.Errorf("the unit remembers %d tokens", n)
	}
}

func TestTokenIsConfined(t *testing.T) {
	b := newDisk(64, 512)
	r := newCopyRig(t, newDisk(64, 512), b)
	before := bytes.Clone(b.now)
	stranger := newRig(t, newDisk(64, 512))
	r.useToken("5/2304", 0, 0, stranger.populate(10, 4), 0, 4)
	token := r.populate(10, 4)
	forged := bytes.Clone(token)
	forged[511] ^= 1
	r.useToken("5/2304", 0, 0, forged, 0, 4)
	short := bytes.Clone(token)
	short[7]--
	r.useToken("5/230A", 0, 0, short, 0, 4)
	r.useToken("5/2301", 0, 0, tokenOfType(0x00010000), 0, 4)
	hidden := (*r.nexus.luns.Load())[0]
	r.nexus.change(func(luns map[uint16]*itl) { delete(luns, 0) })
	r.useToken("5/2304", 0, 0, token, 0, 4)
	if data, _ := r.doOn(1, "84 08 0000000000000000 00001000 00 00"); len(data) != 8 {
		t.Errorf("tokens of a hidden unit are reported: %x", data)
	}
	r.nexus.change(func(luns map[uint16]*itl) { luns[0] = hidden })
	hidden.lost.Store(true)
	r.useToken("A/0D01", 0, 0, token, 0, 4)
	hidden.lost.Store(false)
	holds(t, b, before, 0, nil)
	r.useToken("good", 0, 0, token, 0, 4)
}

func TestZeroToken(t *testing.T) {
	d := newDisk(1500, 512)
	for kind, dev := range map[string]blockdev.Device{"written": d, "zeroed": zeroDisk{d}} {
		copy(d.now, pattern(len(d.now)))
		copy(d.stable, d.now)
		want := bytes.Clone(d.now)
		clear(want[3*512 : 1203*512])
		clear(want[1499*512:])
		r := newRig(t, dev, writeThrough)
		list := writeTokenList(0, 7, tokenOfType(rodBlockDeviceZero), 3, 1200, 1499, 1)
		r.expect("good", tokenCDB(0x11, 2, len(list)), list...)
		d.powerCut()
		t.Log(kind)
		holds(t, d, want, 0, nil)
		r.golden(results4CDB(0x84, 0x07, 2, 4096), "00000020 11 01 0002 FFFFFFFF 00 00 00 F1 00000000000004B1 0000 000000000000 00000000")
	}
}

func TestTokenDurability(t *testing.T) {
	a, b := newDisk(64, 512), newDisk(64, 512)
	want := bytes.Clone(b.now)
	copy(a.now, pattern(len(a.now)))
	copy(want[30*512:], a.now[10*512:14*512])
	r := newCopyRig(t, a, b, writeThrough)
	r.useToken("good", 0, 0, r.populate(10, 4), 30, 4)
	b.powerCut()
	holds(t, b, want, 0, nil)
}

func TestTokenRefusals(t *testing.T) {
	d := newDisk(64, 512)
	before := bytes.Clone(d.now)
	r := newRig(t, d)
	token := r.populate(10, 4)
	edit := func(b []byte, at int, v ...byte) []byte { copy(b[at:], v); return b }
	many := make([]uint64, 2*(maxTokenRanges+1))
	for _, x := range []struct {
		action byte
		list   []byte
		want   string
	}{
		{0x10, populateList(601, 0, 1, 1), "5/2600 param 4 bit 7"},
		{0x10, populateList(0, 0x00010000, 1, 1), "5/2600 param 8 bit 7"},
		{0x10, populateList(0, rodBlockDeviceZero, 1, 1), "5/2600 param 8 bit 7"},
		{0x10, populateList(0, 0, 60, 5), "5/2100"},
		{0x10, populateList(0, 0, 1<<64-1, 1), "5/2100"},
		{0x10, populateList(0, 0, 1, 4, 4, 1), "5/2600 param 32 bit 7"},
		{0x10, populateList(0, 0, 1, 0), "5/2600 param 14 bit 7"},
		{0x10, populateList(0, 0), "5/2600 param 14 bit 7"},
		{0x10, populateList(0, 0, many...), "5/2608"},
		{0x10, edit(populateList(0, 0, 1, 1), 1, 29), "5/2600 param 0 bit 7"},
		{0x10, edit(populateList(0, 0, 1, 1), 15, 17), "5/1A00"},
		{0x11, writeTokenList(0, 0, token, 60, 5), "5/2100"},
		{0x11, writeTokenList(0, 0, token, 1, 4, 4, 1), "5/2600 param 552 bit 7"},
		{0x11, writeTokenList(0, 0, token), "5/2600 param 534 bit 7"},
		{0x11, writeTokenList(0, 0, token, many...), "5/2608"},
		{0x11, writeTokenList(0, 5, token, 1, 1), "5/2600 param 8 bit 7"},
		{0x11, writeTokenList(0, 1<<63, token, 1, 1), "5/2600 param 8 bit 7"},
		{0x11, writeTokenList(0, 1, token, 30, 4), "A/0D04"},
		{0x11, edit(writeTokenList(0, 0, token, 1, 1), 0, 0, 0), "5/2600 param 0 bit 7"},
	} {
		r.expect(x.want, tokenCDB(x.action, 7, len(x.list)), x.list...)
	}
	r.expect("good", tokenCDB(0x10, 7, 0))
	r.expect("good", tokenCDB(0x11, 7, 0))
	r.expect("5/1A00", tokenCDB(0x10, 7, 15))
	r.expect("5/1A00", tokenCDB(0x11, 7, 535))
	r.expect("5/1A00", tokenCDB(0x11, 7, 536+0x10000))
	r.unit.config.ReadOnly = true
	r.expect("7/2700", tokenCDB(0x11, 7, 600), make([]byte, 600)...)
	r.unit.config.ReadOnly = false
	holds(t, d, before, 0, nil)
	r.unit.blocks.Store(1 << 40)
	list := populateList(0, 0, 0, 1<<20, 1<<21, 1<<20, 1<<23, 1)
	r.expect("5/2600 param 56 bit 7", tokenCDB(0x10, 7, len(list)), list...)
}

// A list that is cut anywhere makes no token and writes nothing.
func TestTokenListsTruncated(t *testing.T) {
	d := newDisk(64, 512)
	before := bytes.Clone(d.now)
	r := newRig(t, d)
	token := r.populate(10, 4)
	for action, list := range map[byte][]byte{
		0x10: populateList(0, 0, 10, 4, 1, 1), 0x11: writeTokenList(0, 0, token, 30, 2, 40, 1),
	} {
		for n := range list {
			c := r.nexus.Decode([8]byte{}, Simple, parse(t, tokenCDB(action, 7, len(list))))
			if _, st := c.Execute(t.Context(), list[:n]); text(st) != "5/1A00" {
				t.Errorf("%#x, %d bytes: %s", action, n, text(st))
			}
		}
	}
	if n := len(r.unit.tokens.all); n != 1 {
		t.Errorf("%d tokens", n)
	}
	holds(t, d, before, 0, nil)
}

func FuzzTokenLists(f *testing.F) {
	f.Add(populateList(5, rodPointInTime, 10, 4, 1, 1))
	f.Add(writeTokenList(2, 1, tokenOfType(rodBlockDeviceZero), 30, 2, 40, 1))
	u := newUnit(f, newDisk(64, 512))
	check := func(t *testing.T, ranges []extent, length int64, st Status) {
		if st.code != Good && st.sense.key != illegalRequest {
			t.Errorf("refused with %s", text(st))
		}
		for _, e := range ranges {
			if length -= e.length; e.at < 0 || e.length < 0 || e.at+e.length > 64*512 {
				t.Errorf("extent %+v", e)
			}
		}
		if length != 0 || len(ranges) > maxTokenRanges {
			t.Errorf("%d ranges, %d bytes are not theirs", len(ranges), length)
		}
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		a, st := u.parsePopulation(p)
		check(t, a.ranges, a.length, st)
		b, st := u.parseTokenWrite(p)
		check(t, b.ranges, b.length, st)
	})
}
