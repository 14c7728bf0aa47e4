package main

// guest is the module of all tenants, in WebAssembly's binary format:
//
//	(module
//	  (memory (export "memory") 1)
//	  (func (export "handle") (param $pages i32) (result i32) (local $before i32)
//	    (if (i32.eq (local.tee $before (memory.grow (local.get $pages))) (i32.const -1))
//	      (then (return (i32.const -1))))
//	    (memory.fill (i32.shl (local.get $before) (i32.const 16)) (i32.const 1)
//	      (i32.shl (local.get $pages) (i32.const 16)))
//	    (local.get $before)))
var guest = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x06\x01\x60\x01\x7f\x01\x7f" + // types: of i32 to i32
	"\x03\x02\x01\x00" + // functions: one, of type 0
	"\x05\x03\x01\x00\x01" + // memories: one, of a page or more
	"\x07\x13\x02\x06memory\x02\x00\x06handle\x00\x00" + // exports
	"\x0a\x26\x01\x24\x01\x01\x7f" + // code: one body, with a local variable
	"\x20\x00\x40\x00\x22\x01\x41\x7f\x46\x04\x40\x41\x7f\x0f\x0b" +
	"\x20\x01\x41\x10\x74\x41\x01\x20\x00\x41\x10\x74\xfc\x0b\x00" +
	"\x20\x01\x0b")
