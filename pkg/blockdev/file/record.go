package file

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// formatVersion is that of every JSON file here. A file of another version is
// refused, never guessed at or overwritten.
const formatVersion = 1

// maxJSON bounds what is read of a JSON file, in bytes.
const maxJSON = 1 << 20

// The files as they lie on the disk.
type (
	poolFile struct {
		Version int    `json:"version"`
		ID      string `json:"id"`
	}
	recordFile struct {
		Version int `json:"version"`
		blockdev.Record
	}
	volatileFile struct {
		Version int `json:"version"`
		blockdev.VolatileMark
	}
	unitFile struct {
		Version int             `json:"version"`
		State   json.RawMessage `json:"state"`
	}
)

// encode returns v as JSON and a newline.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) >= maxJSON {
		return nil, fmt.Errorf("%d bytes of JSON, more than %d: %w", len(b), maxJSON, blockdev.ErrInvalid)
	}
	return append(b, '\n'), nil
}

// read decodes a JSON file of ours into v. What is not exactly such a file is
// ErrCorrupt; an absent one is fs.ErrNotExist. No error repeats the content.
func (d *disk) read(name string, v any) (err error) {
	f, err := d.openRegular(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close() // nothing was written to it
	b, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	if err != nil {
		return err
	}
	if len(b) > maxJSON {
		return fmt.Errorf("%s: longer than %d bytes: %w", name, maxJSON, blockdev.ErrCorrupt)
	}
	return decode(name, b, v)
}

func decode(name string, b []byte, v any) error {
	// The version decides before anything else is looked at: a newer
	// format may have fields that this one would drop.
	var head struct{ Version int }
	if json.Unmarshal(b, &head) != nil {
		return fmt.Errorf("%s: not JSON of ours (%d bytes): %w", name, len(b), blockdev.ErrCorrupt)
	}
	if head.Version != formatVersion {
		return fmt.Errorf("%s: format version %d, this program knows %d: %w", name, head.Version, formatVersion, blockdev.ErrCorrupt)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if dec.Decode(v) != nil || dec.More() {
		return fmt.Errorf("%s: unknown fields or values in its JSON: %w", name, blockdev.ErrCorrupt)
	}
	return nil
}

// readRecord returns the record in a volume's directory and checks that it is
// that volume's.
func (d *disk) readRecord(id string) (blockdev.Record, error) {
	var f recordFile
	name := recordPath(id)
	if err := d.read(name, &f); err != nil {
		return blockdev.Record{}, err
	}
	if f.ID != id {
		return blockdev.Record{}, fmt.Errorf("%s: is of volume %.64q: %w", name, f.ID, blockdev.ErrCorrupt)
	}
	if err := f.Validate(); err != nil {
		// Not ErrInvalid to the caller, whose argument is in order.
		return blockdev.Record{}, fmt.Errorf("%s: %w: %s", name, blockdev.ErrCorrupt, err.Error())
	}
	return f.Record, nil
}

// writeRecord replaces a volume's record.
func (d *disk) writeRecord(r blockdev.Record) error {
	b, err := encode(recordFile{formatVersion, r})
	if err != nil {
		return err
	}
	if err := d.keepSpare(recordPath(r.ID), len(b)); err != nil {
		return err
	}
	return d.replace(recordPath(r.ID), b)
}

// The names in a pool. An id has passed ValidateID before it comes here.
const (
	poolName   = "pool.json"
	lockName   = "lock"
	volumesDir = "volumes"
	stagingDir = "staging"
	trashDir   = "trash"
)

func volumePath(id string) string   { return volumesDir + "/" + id }
func dataPath(id string) string     { return volumesDir + "/" + id + "/data" }
func recordPath(id string) string   { return volumesDir + "/" + id + "/record.json" }
func volatilePath(id string) string { return volumesDir + "/" + id + "/volatile.json" }
func unitPath(id string) string     { return volumesDir + "/" + id + "/unit.json" }
func journalPath(id string) string  { return volumesDir + "/" + id + "/atomic.journal" }
