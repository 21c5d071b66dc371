package scsi

import "slices"

// settings are what MODE SELECT changes.
type settings struct {
	// DescriptorSense is the control page's D_SENSE bit.
	DescriptorSense bool `json:"descriptorSense,omitempty"`
	// WriteProtect is the control page's SWP bit.
	WriteProtect bool `json:"writeProtect,omitempty"`
	// WriteCache is the caching page's WCE bit: writes are volatile until
	// SYNCHRONIZE CACHE or FUA.
	WriteCache bool `json:"writeCache"`
	// Thresholds are the descriptors of the logical block provisioning page.
	Thresholds [len(thresholdKinds)]threshold `json:"thresholds,omitzero"`
	// ThresholdsQuiet is the read-write error recovery page's LBPERE bit, the
	// other way round: no threshold is reported.
	ThresholdsQuiet bool `json:"thresholdsQuiet,omitempty"`
	TaskPolicy
}

// modePage is a mode page, or a subpage. Its bytes are those behind the page's
// head.
type modePage struct {
	code, subpage byte
	length        int
	// offered says whether the unit has the page; nil is yes.
	offered func(*Unit) bool
	// changeable has the bits that MODE SELECT may change; the rest of the
	// page is zero.
	changeable []byte
	put        func(settings, []byte)
	// wrong returns the byte and the bit of a value that is reserved though its
	// bits are changeable; nil where there is none.
	wrong func([]byte) (at, bit int, wrong bool)
	// take is put the other way round, nil where nothing is changeable.
	take func([]byte, *settings)
}

// pageSavable is the PS bit of a page's head.
const pageSavable = 1 << 7

// subpageFormat is the SPF bit of a page's head.
const subpageFormat = 1 << 6

// The lengths of a page's head, in bytes: of a page, of a subpage.
const (
	shortHead = 2
	longHead  = 4
)

// modePages are in ascending order.
var modePages = []modePage{
	{code: 0x01, length: 10, offered: (*Unit).knowsSpace, changeable: []byte{5: thresholdReports}, put: putRecovery, take: takeRecovery},
	{code: 0x08, length: 18, changeable: []byte{writeCacheEnabled}, put: putCaching, take: takeCaching},
	{code: 0x0A, length: 10, changeable: []byte{oneSetPerNexus | descriptorFormat, queueErrors, softwareProtect, taskAbortedBit}, put: putControl, wrong: wrongControl, take: takeControl},
	{code: 0x1A, length: 38, put: putPower},
	{code: 0x1C, length: 10, put: putExceptions},
	{code: 0x1C, subpage: 0x02, length: 44, offered: (*Unit).knowsSpace, changeable: changeableThresholds(), put: putThresholds, take: takeThresholds},
}

func (p *modePage) in(u *Unit) bool { return p.offered == nil || p.offered(u) }

// asked says whether MODE SENSE for a page code and a subpage code means the page.
func (p *modePage) asked(code, subpage byte) bool {
	if code == allPages && subpage != allSubpages && subpage != 0 {
		return false
	}
	return (code == p.code || code == allPages) && (subpage == p.subpage || subpage == allSubpages)
}

// head is the page's head without the PS bit.
func (p *modePage) head() []byte {
	if p.subpage == 0 {
		return []byte{p.code, byte(p.length)}
	}
	return []byte{p.code | subpageFormat, p.subpage, byte(p.length >> 8), byte(p.length)}
}

// Read-write error recovery page, SBC-3 section 6.4.8: nothing but LBPERE. It is
// there for units with thresholds.
const thresholdReports = 1 << 7 // byte 7

func putRecovery(s settings, b []byte) { setBit(&b[5], thresholdReports, !s.ThresholdsQuiet) }

func takeRecovery(b []byte, s *settings) { s.ThresholdsQuiet = b[5]&thresholdReports == 0 }

// Caching page, SBC-3 section 6.4.5.
const writeCacheEnabled = 1 << 2

func putCaching(s settings, b []byte) { setBit(&b[0], writeCacheEnabled, s.WriteCache) }

func takeCaching(b []byte, s *settings) { s.WriteCache = b[0]&writeCacheEnabled != 0 }

// Control page, SPC-4 section 7.5.8. Commands are reordered without regard to
// what they do, which is queue algorithm modifier 1: it is about SIMPLE tasks.
// UA_INTLCK_CTRL is zero: a unit attention is cleared by its report.
const (
	oneSetPerNexus   = 1 << 5 // byte 2 of the page: TST, of which 001b is one more
	descriptorFormat = 1 << 2
	unrestricted     = 1 << 4 // byte 3
	queueErrors      = 3 << 1 // QERR
	softwareProtect  = 1 << 3 // byte 4
	taskAbortedBit   = 1 << 6 // byte 5: TAS
)

func putControl(s settings, b []byte) {
	setBit(&b[0], descriptorFormat, s.DescriptorSense)
	setBit(&b[0], oneSetPerNexus, s.SetPerNexus)
	b[1] = unrestricted | byte(s.QueueError)<<1
	setBit(&b[2], softwareProtect, s.WriteProtect)
	setBit(&b[3], taskAbortedBit, s.TaskAborted)
}

// wrongControl: 10b is no value of QERR.
func wrongControl(b []byte) (at, bit int, wrong bool) { return 1, 2, b[1]&queueErrors == 2<<1 }

func takeControl(b []byte, s *settings) {
	s.DescriptorSense = b[0]&descriptorFormat != 0
	s.SetPerNexus = b[0]&oneSetPerNexus != 0
	s.QueueError = QueueError(b[1] & queueErrors >> 1)
	s.WriteProtect = b[2]&softwareProtect != 0
	s.TaskAborted = b[3]&taskAbortedBit != 0
}

// putExceptions is SPC-4 section 7.5.11: no informational exception is ever
// reported (MRIE zero).
func putExceptions(settings, []byte) {}

// putPower is the power condition page, SPC-4 section 7.5.13: there are no
// timers.
func putPower(settings, []byte) {}

func setBit(b *byte, bit byte, on bool) {
	if on {
		*b |= bit
	}
}

// bytes is the page behind its head.
func (p *modePage) bytes(s settings) []byte {
	b := make([]byte, p.length)
	p.put(s, b)
	return b
}

func (p *modePage) mask() []byte {
	return append(slices.Clone(p.changeable), make([]byte, p.length-len(p.changeable))...)
}

// sense is the whole page as MODE SENSE gives it.
func (p *modePage) sense(u *Unit, control byte) []byte {
	var b []byte
	switch control {
	case currentValues:
		b = p.bytes(*u.settings.Load())
	case changeableValues:
		b = p.mask()
	case savedValues:
		b = p.bytes(u.savedSettings())
	default:
		b = p.bytes(u.defaultSettings())
	}
	head := p.head()
	if u.saves() && len(p.changeable) > 0 {
		head[0] |= pageSavable
	}
	return append(head, b...)
}
