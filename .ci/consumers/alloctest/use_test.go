package main

import (
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
)

func TestUse(t *testing.T) {
	mem := alloctest.New(t)
	use(mem)
	alloctest.AssertLive(t, mem, 0, 0)
}
