// Package random draws numbers for samples, faster than math/rand/v2 where the Go
// runtime's own generator can be asked: a few nanoseconds, for what needs no secrecy.
// Of wasm that generator has 32 bits of state since Go 1.27, too few for a long program.
package random
