package isns

import "fmt"

// Status is the status code of a response (RFC 4171 section 5.4). All but
// Success are errors.
type Status uint32

// The status codes that a target meets.
const (
	Success             Status = 0
	UnknownError        Status = 1
	FormatError         Status = 2
	InvalidRegistration Status = 3
	InvalidQuery        Status = 5
	SourceUnknown       Status = 6
	SourceAbsent        Status = 7
	SourceUnauthorized  Status = 8
	NoSuchEntry         Status = 9
	VersionNotSupported Status = 10
	InternalError       Status = 11
	Busy                Status = 12
	OptionNotUnderstood Status = 13
	InvalidUpdate       Status = 14
	MessageNotSupported Status = 15
	SCNEventRejected    Status = 16
	SCNRejected         Status = 17
	AttributeUnknown    Status = 18
	ESINotAvailable     Status = 21
	InvalidDeregister   Status = 22
	FeatureNotSupported Status = 23
)

var statusNames = map[Status]string{
	Success:             "success",
	UnknownError:        "unknown error",
	FormatError:         "message format error",
	InvalidRegistration: "invalid registration: is a target or portal registered under another entity?",
	InvalidQuery:        "invalid query",
	SourceUnknown:       "source unknown",
	SourceAbsent:        "source absent",
	SourceUnauthorized:  "source unauthorized: the server's administrator has to admit this host",
	NoSuchEntry:         "no such entry",
	VersionNotSupported: "version not supported",
	InternalError:       "internal error",
	Busy:                "busy",
	OptionNotUnderstood: "option not understood",
	InvalidUpdate:       "invalid update",
	MessageNotSupported: "message not supported",
	SCNEventRejected:    "SCN event rejected",
	SCNRejected:         "SCN registration rejected",
	AttributeUnknown:    "attribute not implemented",
	ESINotAvailable:     "ESI not available",
	InvalidDeregister:   "invalid deregistration",
	FeatureNotSupported: "registration feature not supported",
}

func (s Status) Error() string {
	if name, ok := statusNames[s]; ok {
		return fmt.Sprintf("iSNS status %d, %s", uint32(s), name)
	}
	return fmt.Sprintf("iSNS status %d", uint32(s))
}
