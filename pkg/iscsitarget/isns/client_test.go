package isns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestServerAddress(t *testing.T) {
	for in, want := range map[string]string{
		"isns.example":       "isns.example:3205",
		"isns.example:1":     "isns.example:1",
		"192.0.2.1":          "192.0.2.1:3205",
		"192.0.2.1:1":        "192.0.2.1:1",
		"2001:db8::1":        "[2001:db8::1]:3205",
		"[2001:db8::1]:3206": "[2001:db8::1]:3206",
		"":                   "",
		":3205":              "",
		"host:":              "",
		"a:b:c":              "",
	} {
		got, err := serverAddress(in)
		if got != want || (err != nil) != (want == "") || (err != nil && !errors.Is(err, ErrInvalid)) {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestInvalidConfig(t *testing.T) {
	for _, c := range []Config{
		{Server: "", EntityID: "x"},
		{Server: "x"},
		{Server: "x", EntityID: strings.Repeat("x", 256)},
		{Server: "x", EntityID: "a\x00b"},
		{Server: "x", EntityID: "x", ESIInterval: time.Millisecond},
		{Server: "x", EntityID: "x", RegistrationPeriod: -1},
	} {
		if _, err := New(c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestInvalidRegistration(t *testing.T) {
	c, err := New(Config{Server: "x", EntityID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Registration{
		{Targets: []Target{{}}},
		{Targets: []Target{{Name: strings.Repeat("x", 224)}}},
		{Targets: []Target{{Name: "a\x00"}}},
		{Targets: []Target{{Name: "a", Alias: strings.Repeat("x", 256)}}},
		{Targets: []Target{{Name: "a"}, {Name: "A"}}},
		{Portals: []Portal{{}}},
		{Portals: []Portal{{Addr: netip.MustParseAddrPort("192.0.2.1:0")}}},
		{Portals: []Portal{loopback, {Addr: netip.MustParseAddrPort("[::ffff:127.0.0.1]:3260")}}},
	} {
		if err := c.Set(r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if err := c.Set(registration(disk, tape)); err != nil {
		t.Error(err)
	}
}

func TestRunsOnce(t *testing.T) {
	c, err := New(Config{Server: "x", EntityID: "x", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Run(ctx); !errors.Is(err, ErrRunning) {
		t.Error(err)
	}
	if !c.Allowed(disk, initiator) {
		t.Error("refused without access control")
	}
}

func TestBatches(t *testing.T) {
	var objects []attrs
	for i := range 200 {
		objects = append(objects, Target{Name: fmt.Sprintf("%s%d", disk, i)}.attrs(nil))
	}
	var names int
	for _, part := range batches(objects) {
		if n := len(part.append(nil)); n > maxRequest {
			t.Errorf("a part of %d bytes", n)
		}
		for _, a := range part {
			if a.tag == tagNodeName {
				names++
			}
		}
	}
	if names != 200 || batches(nil) != nil {
		t.Errorf("%d of 200 objects", names)
	}
}
