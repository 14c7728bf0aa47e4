//go:build gc && !alloctrace_nolinkname

#include "textflag.h"

// func follow(pcs []uintptr) int
//
// A frame pointer points to the caller's frame pointer, and the return address is above
// that. Both must lie on the goroutine's stack, whose end is the second word of g.
TEXT ·follow(SB), NOSPLIT|NOFRAME, $0-32
	MOVQ (TLS), R8
	MOVQ 8(R8), R8
	SUBQ $16, R8           // the highest frame pointer there can be
	MOVQ pcs_base+0(FP), DI
	MOVQ pcs_len+8(FP), SI
	XORQ AX, AX
	MOVQ SP, R9            // the next frame pointer must be above this
	MOVQ BP, BX

next:
	CMPQ AX, SI
	JGE  done
	CMPQ BX, R9
	JLS  done
	CMPQ BX, R8
	JHI  done
	MOVQ 8(BX), DX
	MOVQ DX, (DI)(AX*8)
	INCQ AX
	MOVQ BX, R9
	MOVQ (BX), BX
	JMP  next

done:
	MOVQ AX, ret+24(FP)
	RET
