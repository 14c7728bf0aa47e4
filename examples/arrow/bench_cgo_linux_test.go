//go:build cgo

package main

import "github.com/apache/arrow-go/v18/arrow/memory/mallocator"

func init() { peers["c"] = mallocator.NewMallocator() }
