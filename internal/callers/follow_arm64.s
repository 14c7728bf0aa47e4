//go:build gc && !alloctrace_nolinkname

#include "textflag.h"

// func follow(pcs []uintptr) int
//
// A frame pointer points to the caller's frame pointer, and the return address is above
// that. Both must lie on the goroutine's stack, whose end is the second word of g.
TEXT ·follow(SB), NOSPLIT|NOFRAME, $0-32
	MOVD 8(g), R4
	SUB  $16, R4           // the highest frame pointer there can be
	MOVD pcs_base+0(FP), R0
	MOVD pcs_len+8(FP), R1
	MOVD $0, R2
	MOVD RSP, R5           // the next frame pointer must be above this,
	SUB  $16, R5           // or the word below the stack pointer
	MOVD R29, R3

next:
	CMP  R1, R2
	BGE  done
	CMP  R5, R3
	BLS  done
	CMP  R4, R3
	BHI  done
	MOVD 8(R3), R6
	MOVD R6, (R0)(R2<<3)
	ADD  $1, R2
	MOVD R3, R5
	MOVD (R3), R3
	B    next

done:
	MOVD R2, ret+24(FP)
	RET
