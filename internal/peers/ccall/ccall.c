#if defined(__x86_64__)
__asm__(
	".globl call\n"
	"call:\n"
	"	pushq %rbp\n"
	"	movq %rdi, %rbp\n"
	"	call goCallback\n"
	"	popq %rbp\n"
	"	ret\n");
#elif defined(__aarch64__)
__asm__(
	".globl call\n"
	"call:\n"
	"	stp x29, x30, [sp, #-16]!\n"
	"	mov x29, x0\n"
	"	bl goCallback\n"
	"	ldp x29, x30, [sp], #16\n"
	"	ret\n");
#else
extern void goCallback(void);
void call(unsigned long long frame_pointer) { goCallback(); }
#endif
