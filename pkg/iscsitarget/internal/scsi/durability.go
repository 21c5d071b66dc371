package scsi

import (
	"log/slog"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

type durability struct{}

func newDurability(blockdev.Device, string, *slog.Logger) (*durability, error) {
	return &durability{}, nil
}
func (*durability) attach(*itl) error   { return nil }
func (*durability) detach(*itl)         {}
func (*durability) forget(string) error { return nil }
func (*durability) close() error        { return nil }
