package isns

import (
	"fmt"
	"slices"
	"sync"
)

// Event is what happened to a node: bits of RFC 4171 section 6.4.4.
type Event uint32

// The events of a State Change Notification.
const (
	MemberAdded   Event = 1 << 0 // the node came into a discovery domain of the target
	MemberRemoved Event = 1 << 1 // it left one
	Updated       Event = 1 << 2
	Added         Event = 1 << 3 // the node was registered
	Removed       Event = 1 << 4
)

// wantedEvents are asked for. Not INITIATOR AND SELF INFORMATION ONLY, which
// would spare a target news about others of its kind: open-isns takes it for a
// limit on what initiators hear of the target.
const wantedEvents = Updated | Added | Removed

// Change is one event of a Notification.
type Change struct {
	// Node is the iSCSI name of the node that something happened to.
	Node  string
	Event Event
}

// Notification is a State Change Notification (RFC 4171 section 5.6.5.8).
type Notification struct {
	// Target is the registered target that is told.
	Target  string
	Changes []Change
}

// parseNotification reads an SCN: the destination, a timestamp, and then for
// each event a bitmap and a name (with discovery domains behind it, which only a
// control node is told).
func parseNotification(l attrs) (Notification, error) {
	if len(l) == 0 || l[0].tag != tagNodeName {
		return Notification{}, fmt.Errorf("%w: SCN without a destination", errFormat)
	}
	n := Notification{Target: l[0].text()}
	var event Event
	for _, a := range l[1:] {
		switch a.tag {
		case tagSCNBitmap:
			bits, err := a.number()
			if err != nil {
				return Notification{}, err
			}
			event = Event(bits)
		case tagNodeName:
			n.Changes = append(n.Changes, Change{a.text(), event})
		}
	}
	return n, nil
}

// maxNews bounds the notifications that wait to be acted upon.
const maxNews = 256

// news are notifications between the connection that they came on and Run.
type news struct {
	mu      sync.Mutex
	waiting []Notification
	more    bool // some had no room: what they told is unknown
	signal  chan struct{}
}

func newNews() *news { return &news{signal: make(chan struct{}, 1)} }

func (n *news) put(x Notification) {
	n.mu.Lock()
	if len(n.waiting) < maxNews {
		n.waiting = append(n.waiting, x)
	} else {
		n.more = true
	}
	n.mu.Unlock()
	poke(n.signal)
}

// take returns what waits; more says that there was more than is kept.
func (n *news) take() (waiting []Notification, more bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	waiting, more = n.waiting, n.more
	n.waiting, n.more = nil, false
	return waiting, more
}

// targetsOf are the targets of e that were notified, each once.
func targetsOf(l []Notification, e entry) []Target {
	var told []Target
	for _, t := range e.targets {
		if slices.ContainsFunc(l, func(n Notification) bool { return fold(n.Target) == fold(t.Name) }) {
			told = append(told, t)
		}
	}
	return told
}

// poke leaves a signal, unless one waits already.
func poke(signal chan struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}
