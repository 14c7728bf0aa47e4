// Lets the compiler accept functions without a body, as in runtime_go127.go.
