package iscsitarget_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// tracer keeps what it was told, by the names of the events, in their order.
type tracer struct {
	mu     sync.Mutex
	events []iscsitarget.Event
}

func (r *tracer) trace(e iscsitarget.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// names are those of the events, without the PDUs.
func (r *tracer) names() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if name := strings.TrimPrefix(fmt.Sprintf("%T", e), "iscsitarget."); name != "Transferred" {
			names = append(names, name)
		}
	}
	return names
}

func TestTrace(t *testing.T) {
	var told tracer
	r := newRig(t, iscsitarget.Options{Trace: told.trace})
	r.permit(iscsitarget.Grant{CHAP: &iscsitarget.CHAP{User: "joe", Secret: "secret-of-joe"}})
	login := func(user, secret string) iscsitest.Login {
		return iscsitest.Login{Initiator: node, Target: target, CHAP: &iscsitest.CHAP{User: user, Secret: secret}}
	}
	r.refused(pdu.LoginAuthFailure, login("nobody", "secret-of-joe"))
	r.refused(pdu.LoginAuthFailure, login("joe", "wrong"))
	c := r.dial(1)
	c.Login(login("joe", "secret-of-joe"))
	ask(c, "")
	r.shutDown()

	names := told.names()
	// What ends a connection is told beside what begins the next: it is counted, not put in order.
	want := []string{
		"ConnectionRequested", "LoginRequested", "TargetSought", "UserUnknown",
		"ConnectionRequested", "UserRefused",
		"ConnectionRequested", "UserAccepted", "SessionSought", "SessionCreated", "ConnectionTaken", "TextRequested", "SessionEnded",
	}
	at := 0
	for _, name := range want {
		i := slices.Index(names[at:], name)
		if i < 0 {
			t.Fatalf("no %s in its turn in %v", name, names)
		}
		at += i + 1
	}
	counts := make(map[string]int)
	for _, name := range names {
		counts[name]++
	}
	if counts["ConnectionRequested"] != 3 || counts["ConnectionClosed"] != 3 || counts["ConnectionLeft"] != 1 {
		t.Errorf("three connections, of which one was taken, in %v", names)
	}
	for _, e := range told.events {
		if e, ok := e.(iscsitarget.Transferred); ok && len(e.BHS) != pdu.BHSLen {
			t.Errorf("a header of %d bytes", len(e.BHS))
		}
	}
}
