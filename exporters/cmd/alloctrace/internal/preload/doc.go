// Package preload records the events of malloc in programs that were not built for it. It builds recorder/preload.c with the C
// compiler of the machine, which the dynamic linker of Linux loads into a program, and reads the files that this writes, which
// recorder/file.h describes. They are an intermediate form: command alloctrace makes recordings of them.
package preload
