package blackbox

import "github.com/alloctrace/alloctrace/internal/measure"

func emulated() bool { return measure.Emulated() }
