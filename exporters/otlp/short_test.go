package otlp

import _ "github.com/alloctrace/alloctrace/internal/short" // long tests
