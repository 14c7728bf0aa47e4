// Adapters of the clients that .ci/clients runs on this library's memory. The script joins this module, the checkout,
// blockalloc/wazeromem and a copy of the client in a workspace.
module alloctrace.example/clients

go 1.26.0

require github.com/alloctrace/alloctrace v0.1.0

require golang.org/x/sys v0.44.0

replace github.com/alloctrace/alloctrace => ../..
