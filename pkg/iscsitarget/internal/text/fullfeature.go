package text

import "fmt"

// loginOnly are the keys, beside those of the table of rules, that have no place
// in an initiator's text in full-feature phase (RFC 7143 sections 12 and 13, "Use"
// and "Senders").
var loginOnly = map[string]bool{
	"AuthMethod": true, "CHAP_A": true, "CHAP_I": true, "CHAP_C": true, "CHAP_N": true, "CHAP_R": true,
	"InitiatorName": true, "SessionType": true, "TargetName": true,
}

// maxKeys bounds the keys of one exchange in full-feature phase.
const maxKeys = 128

// Exchange is one negotiation in full-feature phase (RFC 7143 section 6.4), from
// the first Text Request to the last response. What it settles holds when it is
// over.
type Exchange struct {
	// MaxRecvDataSegmentLength is what the initiator declared that it
	// takes from now on, in bytes; 0 where it said nothing.
	MaxRecvDataSegmentLength uint32

	done map[string]bool
}

// Once counts a key in. The error is one that came before, which RFC 7143
// section 6.4 makes a protocol error, or one too many.
func (x *Exchange) Once(key string) error {
	switch {
	case x.done[key]:
		return fmt.Errorf("%w: %s came before", ErrSyntax, key)
	case len(x.done) >= maxKeys:
		return fmt.Errorf("%w: more than %d keys", ErrSyntax, maxKeys)
	case x.done == nil:
		x.done = map[string]bool{}
	}
	x.done[key] = true
	return nil
}

// Answer returns our value for a key that the initiator sent; empty means that
// the key wants no answer.
func (x *Exchange) Answer(p Pair) string {
	switch p.Key {
	case "InitiatorAlias":
		return ""
	case "MaxRecvDataSegmentLength":
		v, err := number(p.Value, 512, 1<<24-1)
		if err != nil {
			return Reject
		}
		x.MaxRecvDataSegmentLength = v
		return ""
	}
	if _, known := rules[p.Key]; known || loginOnly[p.Key] {
		return Reject
	}
	return NotUnderstood
}
