// Package random draws numbers for samples, faster than math/rand/v2 where the Go
// runtime's own generator can be asked: a few nanoseconds, for what needs no secrecy.
package random
