//go:build gc && (amd64 || arm64)

package recursion

// elsewhere has the bits that an address in one of the places has not.
const elsewhere = 1<<17 - 1<<13
