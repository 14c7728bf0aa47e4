package vm

import (
	"io"
	"strings"
	"testing"
)

func TestSyntaxErrors(t *testing.T) {
	m, _ := newMachine(t, Options{})
	for text, want := range map[string]string{
		"(1 2":                "line 1: the text ends inside a list",
		"\n(a\n\"b":           "line 3: the text ends inside a string or |symbol|",
		")":                   `line 1: unexpected ")"`,
		"( . 1)":              `line 1: unexpected "."`,
		"(1 . 2 3)":           "line 1: more than one datum after the dot of a list",
		"#\\nosuch":           `line 1: unknown character #\nosuch`,
		`"\q"`:                `line 1: unknown escape \q`,
		`"\x110000;"`:         `line 1: bad escape \x110000`,
		"#u8(1 256)":          "line 1: #u8 has something that is no byte",
		"#hash":               `line 1: unknown datum "#hash"`,
		"#0#":                 "line 1: #0#: a label is defined by #0= once, and used by #0# inside",
		"#0=#0#":              "line 1: #0= stands for itself",
		"1/3":                 "line 1: 1/3: this Scheme has no exact fractions: write it as a decimal",
		"9999999999999999999": "line 1: 9999999999999999999: this Scheme has no integers of more than 63 bits",
		"#| #| |#":            "line 1: the text ends inside a comment #|",
		"(if)":                "(if): use (if TEST THEN ELSE)",
		"(let ((x)) x)":       "let: the bindings are ((NAME VALUE) ...), not ((x))",
		"(lambda (x x) x)":    "x is bound twice",
		"(lambda (1) x)":      "1 cannot be a variable: use a symbol",
		"(quote . x)":         "a form must be a proper list: (quote . x)",
		"()":                  "() is no expression: quote it",
		"if":                  "if is syntax, and no variable",
		"(else)":              "else makes no sense here: (else)",
		"(let () )":           "(let ()): use (let ((NAME VALUE) ...) BODY ...)",
		"(define-syntax f (syntax-rules () ((_) (f)))) (f)":                     "expressions are nested more than 2000 deep, or a macro never ends",
		"(define-syntax f (syntax-rules () ((_) (begin (f))))) (lambda () (f))": "a macro never ends: more than 1000000 uses, the last in (f)",
		"(let () (define-syntax #u8(1) (syntax-rules ())) 1)":                   "define-syntax: [1] is no name",
		strings.Repeat("(", 3000):                                               "line 1: data are nested more than 2000 deep",
	} {
		if got := run(m, text); got != "error: "+want {
			t.Errorf("%.50s\n got %s\nwant error: %s", text, got, want)
		}
	}
}

// TestEndless: code that refers to itself, or is nested however deeply, is an error and does not exhaust Go's stack.
func TestEndless(t *testing.T) {
	m, _ := newMachine(t, Options{})
	run(m, "(define-syntax nest (syntax-rules () ((_ () x) 'x) ((_ (a . b) x) (nest b (x))))) (define-syntax any (syntax-rules () ((_ x ...) 1)))")
	for _, text := range []string{
		"(define-syntax m (syntax-rules () ((_) '#0=(1 . #0#)))) (m)",
		"(define-syntax m (syntax-rules () ((_) '#0=(1 . #0#)))) (eval '(m))",
		"(define-syntax m (syntax-rules () ((_ . #0=(x . #0#)) 1))) (m . #1=(1 . #1#))",
		"(define-syntax m (syntax-rules () ((_ #0=(x . #0#) ...) 1))) (m)",
		"(quasiquote #0=(1 . #0#))",
		"(quasiquote #0=#(#0#))",
		"(cond-expand (#0=(and #0#) 1))",
		"#0=(begin #0#)",
		"(+ . #0=(1 . #0#))",
		"(define #0=(#0# x) 1)",
		"(define-values #0=(a . #0#) 1)",
		"(define-values ((f x)) 1)",
		"(let () (define-values #0=(a . #0#) 1) 1)",
		"(lambda #0=(a . #0#) 1)",
		"(any . #0=(1 . #0#))",
		"(eval (cons 'and (make-list 100000 1)))",
		"(eval (cons 'or (make-list 100000 #f)))",
		"(eval (cons 'cond (make-list 100000 '(#f))))",
		"(eval `(case 1 ,@(make-list 100000 '((2) 3))))",
		"(eval `(let* ,(make-list 100000 '(a 1)) 1))",
		"(eval (list 'quasiquote (make-list 100000 1)))",
		"(eval (list 'lambda '() (list 'nest (make-list 100000 1) '())))",
	} {
		if err := m.Run(strings.NewReader(text), nil); err == nil {
			t.Errorf("%s is no error", text)
		}
	}
}

func TestIncomplete(t *testing.T) {
	for text, want := range map[string]bool{"": false, "(a": true, "(a)": false, "(a) (b": true, `"`: true, "#|": true, "'": true, "#;": true, ")": false, "x": false} {
		if Incomplete(text) != want {
			t.Errorf("%q is incomplete: %t", text, !want)
		}
	}
}

// FuzzReader reads anything. What it reads, it reads again from what write makes of it.
func FuzzReader(f *testing.F) {
	for _, s := range []string{"(a . b)", "#(1 2.5 #\\x41 \"a\\n\\x3bb;\")", "#0=(a #0# . #1=(b . #1#))", "`(1 ,x ,@y)", "|a b|", "#u8(1 2)", "#;x #|y|# z", "-1.5e300", "#!fold-case ABC", "+inf.0", "1/2", "#\\", "\\", "#e1.5", "'()", "#t#f"} {
		f.Add(s)
	}
	m, _ := newMachine(f, Options{})
	f.Fuzz(func(t *testing.T, text string) {
		r := newReader(strings.NewReader(text), m.intern)
		for {
			x, err := r.read()
			if err == io.EOF {
				return
			}
			if err != nil {
				if _, ok := err.(*SyntaxError); !ok {
					t.Fatalf("%q: an error of type %T: %v", text, err, err)
				}
				return
			}
			v, err := m.toHeap(x)
			if err != nil {
				t.Fatal(err)
			}
			m.pins = append(m.pins[:0], v)
			first := m.show(v, true)
			y, err := newReader(strings.NewReader(first), m.intern).read()
			if err != nil {
				t.Fatalf("%q is written as %q, which cannot be read: %v", text, first, err)
			}
			w, err := m.toHeap(y)
			if err != nil {
				t.Fatal(err)
			}
			if !m.equal(m.pins[0], w) || m.show(w, true) != first {
				t.Fatalf("%q is written as %q, which is read as %q", text, first, m.show(w, true))
			}
		}
	})
}

// FuzzCompile expands and compiles anything that can be read.
func FuzzCompile(f *testing.F) {
	for _, r := range table(f) {
		f.Add(r.expression)
	}
	m, _ := newMachine(f, Options{})
	f.Fuzz(func(t *testing.T, text string) {
		r := newReader(strings.NewReader(text), m.intern)
		for x, err := r.read(); err == nil; x, err = r.read() {
			if _, err := m.compile(x); err != nil {
				if _, ok := err.(*SyntaxError); !ok {
					t.Fatalf("%q: an error of type %T: %v", text, err, err)
				}
			}
		}
	})
}
