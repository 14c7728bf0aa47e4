module github.com/alloctrace/alloctrace/blockalloc/wazeromem

go 1.26.0

require (
	github.com/alloctrace/alloctrace v0.1.0
	github.com/tetratelabs/wazero v1.9.0
	golang.org/x/sys v0.27.0
)
