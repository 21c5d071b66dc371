package initiator

import (
	"fmt"
	"slices"
	"testing"
)

// addPortal gives a session of the fake host a connection to an address.
func (f *fakeHost) addPortal(session, address, port string) {
	dir := fmt.Sprintf("sys/class/iscsi_session/session%[1]s/device/connection%[1]s:0/iscsi_connection/connection%[1]s:0", session)
	f.mkdir(dir)
	f.write(dir+"/persistent_address", address+"\n")
	f.write(dir+"/persistent_port", port+"\n")
}

func TestShutOut(t *testing.T) {
	const prefix, a, b = "iqn.2026-11.io.csi-ietd:", "192.0.2.7:3260", "[2001:db8::1]:3261"
	tests := []struct {
		name string
		add  func(f *fakeHost)
		// discovered is what portals answer; one that is not here does not.
		discovered map[string]string
		want       []string
	}{
		{"nothing", func(*fakeHost) {}, nil, nil},
		{"others are named", lostSession(prefix+"x", "192.0.2.7"), map[string]string{a: a + ",1 " + prefix + "y\n"}, []string{prefix + "x"}},
		{"none is named", lostSession(prefix+"x", "192.0.2.7"), map[string]string{a: ""}, []string{prefix + "x"}},
		{"named", lostSession(prefix+"x", "192.0.2.7"), map[string]string{a: a + ",1 " + prefix + "y\n" + a + ",1 " + prefix + "x\n"}, nil},
		{"no answer", lostSession(prefix+"x", "192.0.2.7"), nil, nil},
		{"one of two answers", lostSession(prefix+"x", "192.0.2.7", "2001:db8::1"), map[string]string{b: ""}, []string{prefix + "x"}},
		{"one of two names it", lostSession(prefix+"x", "192.0.2.7", "2001:db8::1"), map[string]string{a: "", b: b + ",1 " + prefix + "x"}, nil},
		{"a session lives", func(f *fakeHost) {
			lostSession(prefix+"x", "192.0.2.7")(f)
			f.addSession(prefix+"x", testInitiator, "x", loggedIn)
		}, map[string]string{a: ""}, nil},
		{"somebody else's", func(f *fakeHost) {
			f.addPortal(f.addSession(prefix+"x", "iqn.1993-08.org.debian:01:x", "x", recovers), "192.0.2.7", "3260")
		}, map[string]string{a: ""}, nil},
		{"another prefix", lostSession("iqn.2004-10.org.other:x", "192.0.2.7"), map[string]string{a: ""}, nil},
		{"no address", func(f *fakeHost) { f.addSession(prefix+"x", testInitiator, "x", recovers) }, map[string]string{a: ""}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeHost(t)
			tt.add(f)
			f.discovered = tt.discovered
			got, err := f.initiator().ShutOut(t.Context(), prefix)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func lostSession(target string, addresses ...string) func(*fakeHost) {
	return func(f *fakeHost) {
		for n, address := range addresses {
			f.addPortal(f.addSession(target, testInitiator, "x", recovers), address, fmt.Sprint(3260+n))
		}
	}
}

// TestShutOutAsksAPortalOnce, however many targets it had.
func TestShutOutAsksAPortalOnce(t *testing.T) {
	f := newFakeHost(t)
	for n := range 20 {
		lostSession(fmt.Sprint("iqn.2026-11.io.csi-ietd:", n), "192.0.2.7")(f)
	}
	f.discovered = map[string]string{"192.0.2.7:3260": ""}
	got, err := f.initiator().ShutOut(t.Context(), "iqn.2026-11.io.csi-ietd:")
	if err != nil || len(got) != 20 {
		t.Errorf("got %q, %v", got, err)
	}
	if calls := f.called("discovery"); len(calls) != 1 || !slices.Contains(calls[0], ifaceName) {
		t.Errorf("called %q", calls)
	}
}
