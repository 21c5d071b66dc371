package blockdev

import "slices"

// IsZero reports whether nothing volatile was outstanding.
func (m VolatileMark) IsZero() bool {
	return m.BootID == "" && len(m.Stages) == 0 && len(m.Lost) == 0
}

// Clone shares nothing with m.
func (m VolatileMark) Clone() VolatileMark {
	m.Stages, m.Lost = slices.Clone(m.Stages), slices.Clone(m.Lost)
	return m
}
