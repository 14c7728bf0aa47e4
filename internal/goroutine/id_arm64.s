//go:build gc

#include "textflag.h"

// func id() uintptr
TEXT ·id(SB),NOSPLIT,$0-8
	MOVD g, ret+0(FP)
	RET

// func depth() uintptr
TEXT ·depth(SB),NOSPLIT,$0-8
	MOVD 8(g), R0
	MOVD RSP, R1
	SUB  R1, R0
	MOVD R0, ret+0(FP)
	RET
