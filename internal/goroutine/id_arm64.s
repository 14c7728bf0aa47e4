//go:build gc

#include "textflag.h"

// func id() uintptr
TEXT ·id(SB),NOSPLIT,$0-8
	MOVD g, ret+0(FP)
	RET
