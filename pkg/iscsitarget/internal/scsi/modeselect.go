package scsi

import (
	"context"
	"encoding/binary"
	"math"
)

const (
	pageFormat   = 1 << 4 // PF
	savePages    = 1 << 0 // SP
	modeHeader6  = 4
	modeHeader10 = 8
)

// decodeModeSelect6 is MODE SELECT(6), SPC-4 section 6.11.
func decodeModeSelect6(r request) Command { return r.modeSelect(int64(r.cdb[4])) }

// decodeModeSelect10 is MODE SELECT(10), SPC-4 section 6.12.
func decodeModeSelect10(r request) Command { return r.modeSelect(int64(bigEndian(r.cdb[7:9]))) }

func (r request) modeSelect(length int64) Command {
	switch {
	case r.cdb[1]&pageFormat == 0:
		return r.fail(invalidField(1, 4))
	case r.cdb[1]&savePages != 0 && !r.itl.unit.saves():
		return r.fail(invalidField(1, 0))
	case length == 0:
		return Command{}
	}
	return Command{Kind: Exec, Dir: DataOut, Length: length}
}

// executeModeSelect checks the whole list before it changes anything.
func executeModeSelect(_ context.Context, c Command, params []byte) ([]byte, Status) {
	u := c.itl.unit
	u.modeMu.Lock()
	defer u.modeMu.Unlock()
	at, st := c.modeHeader(params)
	if st.code != Good {
		return nil, st
	}
	next := *u.settings.Load()
	for at < len(params) {
		n, st := next.takePage(u, params, at)
		if st.code != Good {
			return nil, st
		}
		at += n
	}
	return nil, c.itl.changeSettings(next, c.cdb[1]&savePages != 0)
}

// modeHeader checks the mode parameter header and the block descriptor, and
// returns where the pages begin. The descriptor may name the unit's own block
// length and capacity: neither can be changed.
func (c *Command) modeHeader(params []byte) (at int, st Status) {
	header, long := modeHeader10, false
	if c.cdb[0] == 0x15 {
		header = modeHeader6
	}
	if len(params) < header {
		return 0, check(illegalRequest, ascParameterListLength)
	}
	descriptors := int(params[3])
	if header == modeHeader10 {
		descriptors, long = int(binary.BigEndian.Uint16(params[6:])), params[4]&1 != 0
	}
	size := 8
	if long {
		size = 16
	}
	switch {
	case descriptors == 0:
		return header, StatusGood
	case descriptors != size:
		return 0, invalidParameter(header-1, 7)
	case len(params) < header+size:
		return 0, check(illegalRequest, ascParameterListLength)
	}
	u, d := c.itl.unit, params[header:header+size]
	blocks, all := bigEndian(d[:size/2]), uint64(u.blocks.Load())
	if !long {
		all = min(all, math.MaxUint32)
	}
	if blocks != 0 && blocks != all && (long || blocks != math.MaxUint32) {
		return 0, invalidParameter(header, 7)
	}
	if length := int64(binary.BigEndian.Uint32(d[size-4:]) & 0xFFFFFF); length != u.blockSize {
		return 0, invalidParameter(header+size-3, 7)
	}
	return header + size, StatusGood
}

// takePage takes over the page at an offset of the list and returns its length.
func (s *settings) takePage(u *Unit, params []byte, at int) (int, Status) {
	left := params[at:]
	if len(left) < shortHead || left[0]&subpageFormat != 0 && len(left) < longHead {
		return 0, check(illegalRequest, ascParameterListLength)
	}
	p := u.findModePage(left)
	if p == nil {
		return 0, invalidParameter(at, 5)
	}
	head := p.head()
	for i := 1; i < len(head); i++ {
		if left[i] != head[i] {
			return 0, invalidParameter(at+lengthField(head), 7)
		}
	}
	if len(left) < len(head)+p.length {
		return 0, check(illegalRequest, ascParameterListLength)
	}
	page, now, mask := left[len(head):][:p.length], p.bytes(*s), p.mask()
	for i := range page {
		if (page[i]^now[i])&^mask[i] != 0 {
			return 0, invalidParameter(at+len(head)+i, 7)
		}
	}
	if p.wrong != nil {
		if i, bit, wrong := p.wrong(page); wrong {
			return 0, invalidParameter(at+2+i, bit)
		}
	}
	if p.take != nil {
		p.take(page, s)
	}
	return len(head) + p.length, StatusGood
}

// lengthField is the offset of PAGE LENGTH in a page's head.
func lengthField(head []byte) int { return len(head) / 2 }

// findModePage finds the page that a head names, nil for none.
func (u *Unit) findModePage(head []byte) *modePage {
	code, subpage := head[0]&^(pageSavable|subpageFormat), byte(0)
	if head[0]&subpageFormat != 0 {
		if subpage = head[1]; subpage == 0 {
			return nil // no page has that format and that code
		}
	}
	for i := range modePages {
		if p := &modePages[i]; p.code == code && p.subpage == subpage && p.in(u) {
			return p
		}
	}
	return nil
}

// changeSettings takes over what MODE SELECT asks for, and tells the other
// initiators. Volatile writes are stable before the write cache is off.
func (l *itl) changeSettings(next settings, save bool) Status {
	u := l.unit
	now := *u.settings.Load()
	if save {
		if err := u.saveSettings(next); err != nil {
			u.config.Logger.Error("Cannot save mode pages", "err", err)
			return SenseInternalTargetFailure
		}
	}
	if next == now {
		return StatusGood
	}
	u.settings.Store(&next)
	u.thresholds.configure(next)
	u.establishForOthers(l, attentionModeParameters)
	if now.WriteCache && !next.WriteCache {
		return l.flush()
	}
	return StatusGood
}
