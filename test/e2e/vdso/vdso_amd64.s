#include "textflag.h"

// func Ticks() uint64
TEXT ·Ticks(SB), NOSPLIT, $0-8
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, ret+0(FP)
	RET

// func template() (text *byte, length int)
TEXT ·template(SB), NOSPLIT, $0-16
	LEAQ clockGettime<>(SB), AX
	LEAQ clockGettimeEnd<>(SB), CX
	SUBQ AX, CX
	MOVQ AX, text+0(FP)
	MOVQ CX, length+8(FP)
	RET

// clockGettime is clock_gettime(2) as a C program calls it in its vDSO: the
// clock in DI, the struct timespec at SI, AX the result. It is never called
// where it stands: Install copies it with the four numbers filled in.
TEXT clockGettime<>(SB), NOSPLIT|NOFRAME, $0-0
	CMPL    DI, $1                  // CLOCK_MONOTONIC
	JE      known
	TESTL   DI, DI                  // CLOCK_REALTIME
	JNE     other
known:
	RDTSC
	SHLQ    $32, DX
	ORQ     DX, AX
	MOVQ    $0x7e57c10c00000001, R8 // ticks at the base
	SUBQ    R8, AX
	MOVQ    $0x7e57c10c00000002, R8 // nanoseconds per tick, times 2^32
	MULQ    R8
	SHRQ    $32, DX, AX
	MOVQ    $0x7e57c10c00000003, R8 // CLOCK_REALTIME at the base
	TESTL   DI, DI
	JEQ     add
	MOVQ    $0x7e57c10c00000004, R8 // CLOCK_MONOTONIC at the base
add:
	ADDQ    R8, AX
	XORL    DX, DX
	MOVL    $1000000000, CX
	DIVQ    CX
	MOVQ    AX, 0(SI)
	MOVQ    DX, 8(SI)
	XORL    AX, AX
	RET
other:
	MOVL    $228, AX
	SYSCALL
	RET

// The end of clockGettime.
TEXT clockGettimeEnd<>(SB), NOSPLIT|NOFRAME, $0-0
	RET
