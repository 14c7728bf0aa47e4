package preload

import _ "github.com/alloctrace/alloctrace/internal/short"
