//go:build !(gc && (amd64 || arm64))

package recursion

// elsewhere is for fewer places where the size of a stack is not known: each look counts the calls.
const elsewhere = 1<<21 - 1<<13
