// Lets the compiler accept functions without a body, as in own_pinned.go.
