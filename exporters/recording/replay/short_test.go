package replay_test

import _ "github.com/alloctrace/alloctrace/internal/short" // long tests
