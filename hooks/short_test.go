package hooks

import _ "github.com/alloctrace/alloctrace/internal/short" // long tests
