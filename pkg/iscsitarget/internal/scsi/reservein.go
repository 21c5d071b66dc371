package scsi

import "encoding/binary"

// decodeReadKeys is PERSISTENT RESERVE IN, READ KEYS, SPC-4 section 6.15.2.
func decodeReadKeys(r request) Command {
	s := r.itl.unit.reservations.Load()
	b := s.appendHead(nil, 8*len(s.registrations))
	for _, reg := range s.registrations {
		b = binary.BigEndian.AppendUint64(b, reg.Key)
	}
	return r.reserveIn(s, b)
}

// decodeReadReservation is PERSISTENT RESERVE IN, READ RESERVATION, SPC-4
// section 6.15.3.
func decodeReadReservation(r request) Command {
	const descriptor = 16
	s := r.itl.unit.reservations.Load()
	if s.kind == noReservation {
		return r.reserveIn(s, s.appendHead(nil, 0))
	}
	b := s.appendHead(nil, descriptor)
	b = binary.BigEndian.AppendUint64(b, s.holderKey())
	b = append(b, 0, 0, 0, 0, 0, byte(s.kind), 0, 0) // LU_SCOPE is 0
	return r.reserveIn(s, b)
}

// holderKey is zero where all registrants hold the reservation.
func (s *reservations) holderKey() uint64 {
	for _, reg := range s.registrations {
		if reg.Holder {
			return reg.Key
		}
	}
	return 0
}

// decodeReportCapabilities is PERSISTENT RESERVE IN, REPORT CAPABILITIES, SPC-4
// section 6.15.4.
func decodeReportCapabilities(r request) Command {
	const (
		compatible, specifyPorts, allPorts, persists = 1 << 4, 1 << 3, 1 << 2, 1 << 0 // CRH, SIP_C, ATP_C, PTPL_C
		maskValid, activated                         = 1 << 7, 1 << 0                 // TMV, PTPL_A
		// ALLOW COMMANDS 3: TEST UNIT READY passes all reservations,
		// MODE SENSE and the like those of the Write Exclusive types.
		allowCommands = 3 << 4
	)
	s := r.itl.unit.reservations.Load()
	b := []byte{0, 8, compatible | specifyPorts | allPorts, maskValid | allowCommands, 0, 0, 0, 0}
	setBit(&b[2], persists, r.itl.unit.saves())
	setBit(&b[3], activated, s.persist)
	for _, t := range reservationTypes {
		b[4+t/8] |= 1 << (t % 8)
	}
	return r.reserveIn(s, b)
}

// decodeReadFullStatus is PERSISTENT RESERVE IN, READ FULL STATUS, SPC-4 section
// 6.15.5.
func decodeReadFullStatus(r request) Command {
	s := r.itl.unit.reservations.Load()
	var list []byte
	for i := range s.registrations {
		list = s.appendFullStatus(list, i)
	}
	return r.reserveIn(s, append(s.appendHead(nil, len(list)), list...))
}

func (s *reservations) appendFullStatus(b []byte, i int) []byte {
	const allPorts, holder = 1 << 1, 1 << 0 // ALL_TG_PT, R_HOLDER
	reg := s.registrations[i]
	var d [24]byte
	binary.BigEndian.PutUint64(d[:], reg.Key)
	setBit(&d[12], allPorts, reg.AllTargetPorts)
	if s.holds(i) {
		d[12] |= holder
		d[13] = byte(s.kind)
	}
	if !reg.AllTargetPorts {
		binary.BigEndian.PutUint16(d[18:], reg.TargetPort)
	}
	id := appendTransportID(nil, reg.Initiator)
	binary.BigEndian.PutUint32(d[20:], uint32(len(id)))
	return append(append(b, d[:]...), id...)
}

// appendHead appends PRGENERATION and ADDITIONAL LENGTH.
func (s *reservations) appendHead(b []byte, length int) []byte {
	b = binary.BigEndian.AppendUint32(b, s.generation)
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

// reserveIn ends the command. A unit that is held by RESERVE knows of no
// persistent reservations, whoever asks (SPC-2 section 5.5.1).
func (r request) reserveIn(s *reservations, b []byte) Command {
	if s.reserver != nil {
		return r.fail(StatusReservationConflict)
	}
	return r.data(b, bigEndian(r.cdb[7:9]))
}
