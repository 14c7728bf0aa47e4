package shard

import _ "github.com/alloctrace/alloctrace/internal/short" // long tests
