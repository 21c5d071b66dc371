package scsi

// copyAborted is the sense key COPY ABORTED of SPC-4 section 4.5.6.
const copyAborted senseKey = 0xA

// Additional sense codes of third-party copy, ASC<<8|ASCQ (SPC-4 annex F).
const (
	ascOperationInProgress           uint16 = 0x0016
	ascThirdPartyDeviceFailure       uint16 = 0x0D01
	ascCopyTargetNotReachable        uint16 = 0x0D02
	ascIncorrectCopyTargetType       uint16 = 0x0D03
	ascCopyTargetUnderrun            uint16 = 0x0D04
	ascUnsupportedTokenType          uint16 = 0x2301
	ascTokenUnknown                  uint16 = 0x2304
	ascTokenExpired                  uint16 = 0x2307
	ascTokenCancelled                uint16 = 0x2308
	ascTokenDeleted                  uint16 = 0x2309
	ascInvalidTokenLength            uint16 = 0x230A
	ascTooManyCSCDs                  uint16 = 0x2606
	ascUnsupportedCSCDType           uint16 = 0x2607
	ascTooManySegments               uint16 = 0x2608
	ascUnsupportedSegmentType        uint16 = 0x2609
	ascUnexpectedInexactSegment      uint16 = 0x260A
	ascInlineDataLengthExceeded      uint16 = 0x260B
	ascInvalidOperationForCopy       uint16 = 0x260C
	ascInsufficientResourcesForToken uint16 = 0x550D
)
