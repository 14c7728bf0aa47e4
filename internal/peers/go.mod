// What users would pick instead, measured beside this library: a module of its own and outside go.work, so that no
// requirement of theirs, and no cgo, reaches a user. Run it with GOWORK=off.
module github.com/alloctrace/alloctrace/internal/peers

go 1.25.0

require github.com/alloctrace/alloctrace v0.0.0

require golang.org/x/sys v0.47.0 // indirect

replace github.com/alloctrace/alloctrace => ../..
