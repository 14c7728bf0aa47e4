//go:build gc

#include "textflag.h"

// func id() uintptr
TEXT ·id(SB),NOSPLIT,$0-8
	MOVQ (TLS), AX
	MOVQ AX, ret+0(FP)
	RET

// func depth() uintptr
TEXT ·depth(SB),NOSPLIT,$0-8
	MOVQ (TLS), AX
	MOVQ 8(AX), AX
	SUBQ SP, AX
	MOVQ AX, ret+0(FP)
	RET
