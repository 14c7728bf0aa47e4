module github.com/alloctrace/alloctrace/blockalloc/cmem

go 1.26.0

require github.com/alloctrace/alloctrace v0.1.0

require golang.org/x/sys v0.27.0 // indirect
