package scsi

import "testing"

// BenchmarkCommand is the SCSI part of a read and of a write of 4 KiB: the CDB is decoded,
// the task joins its task set, the data moves, the task leaves.
func BenchmarkCommand(b *testing.B) {
	for _, cdb := range []string{"28 00 00000008 00 0008 00", "2A 00 00000008 00 0008 00"} {
		b.Run(map[byte]string{'8': "read", 'A': "write"}[cdb[1]], func(b *testing.B) {
			r := newRig(b, newDisk(1024, 512))
			bytes, data := parse(b, cdb), make([]byte, 4096)
			b.ReportAllocs()
			var turn Turn
			for b.Loop() {
				turn = Turn{}
				c := r.nexus.Decode([8]byte{}, Simple, bytes)
				c.Join(&turn, nil)
				var st Status
				if c.Kind == Read {
					st = c.ReadAt(data, 0)
				} else if st = c.WriteAt(data, 0); st.code == Good {
					st = c.Finish()
				}
				turn.Leave()
				if st.code != Good {
					b.Fatal(st)
				}
			}
		})
	}
}
