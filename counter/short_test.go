package counter

import _ "github.com/alloctrace/alloctrace/internal/short" // long tests
