module github.com/alloctrace/alloctrace/exporters/cmd/alloctrace

go 1.26.0

require (
	github.com/alloctrace/alloctrace v0.1.0
	github.com/google/pprof v0.0.0-20241101162523-b92577c0c142
)

require golang.org/x/sys v0.27.0 // indirect
