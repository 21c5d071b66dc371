package scsi

import (
	"context"
	"encoding/binary"
)

// Values of the page control field (SPC-4 section 6.8): only the cumulative
// values, current and default, are there.
const (
	currentCumulative = 1
	defaultCumulative = 3
)

// logPage is a log page without subpages. parameters are those behind the
// page's head, in ascending order of their codes.
type logPage struct {
	code       byte
	offered    func(*Unit) bool
	parameters func(*Unit) ([]logParameter, error)
}

// logParameter is a log parameter (SPC-4 section 7.3.2).
type logParameter struct {
	code  uint16
	value []byte
}

// logPages are all pages but 00h, which lists them, in ascending order.
var logPages = []logPage{
	{code: 0x0C, offered: (*Unit).knowsSpace, parameters: provisioningLog},
	{code: 0x0D, parameters: temperatureLog},
	{code: 0x2F, parameters: exceptionsLog},
}

func (p *logPage) in(u *Unit) bool { return p.offered == nil || p.offered(u) }

// decodeLogSense is LOG SENSE, SPC-4 section 6.8. Nothing is saved, and no
// parameter is ever reset.
func decodeLogSense(r request) Command {
	control, code := r.cdb[2]>>6, r.cdb[2]&0x3F
	switch {
	case r.cdb[1]&1 != 0: // SP
		return r.fail(invalidField(1, 0))
	case control != currentCumulative && control != defaultCumulative:
		return r.fail(invalidField(2, 7))
	case r.cdb[3] != 0 && (r.cdb[3] != allSubpages || code != 0):
		return r.fail(invalidField(3, 7))
	case code != 0 && r.itl.unit.findLogPage(code) == nil:
		return r.fail(invalidField(2, 5))
	}
	return Command{Kind: Exec, Dir: DataIn, Length: int64(bigEndian(r.cdb[7:9]))}
}

func (u *Unit) findLogPage(code byte) *logPage {
	for i := range logPages {
		if p := &logPages[i]; p.code == code && p.in(u) {
			return p
		}
	}
	return nil
}

func executeLogSense(_ context.Context, c Command, _ []byte) ([]byte, Status) {
	code, subpage, pointer := c.cdb[2]&0x3F, c.cdb[3], binary.BigEndian.Uint16(c.cdb[5:])
	if code == 0 {
		if pointer != 0 {
			return nil, invalidField(5, 7)
		}
		return c.cut(c.itl.unit.supportedLogs(subpage == allSubpages)), StatusGood
	}
	all, err := c.itl.unit.findLogPage(code).parameters(c.itl.unit)
	if err != nil {
		return nil, c.itl.unit.readFailed(err, 0)
	}
	b, found := []byte{code, 0, 0, 0}, pointer == 0
	for _, p := range all {
		if p.code >= pointer {
			b, found = p.append(b), true
		}
	}
	if !found {
		return nil, invalidField(5, 7)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	return c.cut(b), StatusGood
}

// cut cuts data to the allocation length.
func (c *Command) cut(b []byte) []byte { return b[:min(int64(len(b)), c.Length)] }

// supportedLogs is page 00h, or 00h/FFh, which has a subpage code for each.
func (u *Unit) supportedLogs(subpages bool) []byte {
	b := []byte{0, 0, 0, 0}
	if subpages {
		b[0], b[1] = subpageFormat, allSubpages
	}
	add := func(code, subpage byte) {
		b = append(b, code)
		if subpages {
			b = append(b, subpage)
		}
	}
	add(0, 0)
	if subpages {
		add(0, allSubpages)
	}
	for i := range logPages {
		if p := &logPages[i]; p.in(u) {
			add(p.code, 0)
		}
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	return b
}

func (p logParameter) append(b []byte) []byte {
	const binaryList = 3 // FORMAT AND LINKING
	b = append(b, byte(p.code>>8), byte(p.code), binaryList, byte(len(p.value)))
	return append(b, p.value...)
}

// knowsSpace says that the unit can tell what it and its pool have left.
func (u *Unit) knowsSpace() bool { return u.thin() && u.spacer != nil }

// provisioningLog is the logical block provisioning page (SBC-3 section 6.3.4):
// what the pool has left and what the unit uses, in threshold sets.
func provisioningLog(u *Unit) ([]logParameter, error) {
	const (
		shared, own = 2, 1 // SCOPE: of several units, of this one
	)
	space, err := u.spacer.Space()
	if err != nil {
		return nil, err
	}
	return []logParameter{
		{resourceAvailable, append(u.thresholdSets(space.Available), shared, 0, 0, 0)},
		{resourceUsed, append(u.thresholdSets(space.Used), own, 0, 0, 0)},
	}, nil
}

func (u *Unit) thresholdSets(n int64) []byte {
	sets := min(u.inBlocks(n)>>u.thresholdExponent(), 1<<32-1)
	return binary.BigEndian.AppendUint32(nil, uint32(sets))
}

// temperatureLog is the temperature page (SPC-4 section 7.3.21): nobody knows it,
// which is FFh.
func temperatureLog(*Unit) ([]logParameter, error) {
	const unknown = 0xFF
	return []logParameter{{0, []byte{0, unknown}}, {1, []byte{0, unknown}}}, nil
}

// exceptionsLog is the informational exceptions page (SPC-4 section 7.3.11):
// there is none, at an unknown temperature.
func exceptionsLog(*Unit) ([]logParameter, error) {
	return []logParameter{{0, []byte{0, 0, 0xFF, 0}}}, nil
}
