package scsi

import "context"

type operation struct {
	execute func(context.Context, *Command, []byte) ([]byte, Status)
}
