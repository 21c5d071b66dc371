package scsi

import (
	"context"
	"slices"
	"testing"
)

// TestPreemptAndAbort tells whose commands to abort when the change is there for
// all to see, and answers afterwards.
func TestPreemptAndAbort(t *testing.T) {
	for _, tt := range []struct {
		name string
		held reservationType // by A
		key  uint64
		want []string
	}{
		{"one", writeExclusive, 0xA, []string{portNames[portA]}},
		{"no holder", writeExclusive, 0xC, []string{portNames[portC]}},
		{"all registrants", exclusiveAccessAll, 0, []string{portNames[portC], portNames[portA]}},
		{"itself", writeExclusive, 0xB, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPorts(t, newDisk(64, 512))
			p.register()
			p.out(portA, "good", actionReserve, tt.held, 0xA, 0)
			var got []string
			p.unit.OnPreempt(func(ctx context.Context, ports []string) {
				if ctx != context.Background() {
					t.Error("another context than the command's")
				}
				if p.unit.reservations.Load().generation != 4 {
					t.Error("not preempted yet")
				}
				got = ports
				p.attentions("-", "-", "-") // what is aborted must not take them
			})
			p.out(portB, "good", actionPreemptAndAbort, writeExclusive, 0xB, tt.key)
			if !slices.Equal(got, tt.want) {
				t.Errorf("aborted %q, want %q", got, tt.want)
			}
			got = nil
			p.out(portB, "conflict", actionPreemptAndAbort, writeExclusive, 0xB, 0xDD)
			p.out(portB, map[bool]string{true: "good", false: "conflict"}[tt.key != 0xB], actionPreempt, writeExclusive, 0xB, 0xB)
			if got != nil {
				t.Errorf("aborted %q for nothing", got)
			}
		})
	}
}
