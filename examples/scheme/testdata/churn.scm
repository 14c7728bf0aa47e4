;; A cache of objects of many sizes: a part of them lives long, most die soon, and what lives is
;; scattered among what has died. What the cache has is checked all the time. The argument is how many steps to do.

(define steps
  (let ((args (cdr (command-line))))
    (if (pair? args) (string->number (car args)) 1500)))

(define seed 42)
(define (random n)
  (set! seed (modulo (+ (* seed 1103515245) 12345) 2147483648))
  (modulo (quotient seed 65536) n))

;; An object with a number in it, and the sum that proves that it is whole.
(define (make-object id)
  (case (random 10)
    ((0) (make-string (random 200) (integer->char (+ 65 (modulo id 26)))))
    ((1) (make-vector (random 300) id))
    ((2) (make-bytevector (random 1000) (modulo id 256)))
    ((3) (if (= 0 (random 20)) (make-vector 3000 id) (vector id)))
    ((4) (inexact id))
    (else (let loop ((n (random 12)) (l '())) (if (= n 0) l (loop (- n 1) (cons id l)))))))

(define (whole? id x)
  (define (all? l) (or (null? l) (and (equal? (car l) id) (all? (cdr l)))))
  (cond ((string? x)
         (let loop ((i 0))
           (or (= i (string-length x))
               (and (char=? (string-ref x i) (integer->char (+ 65 (modulo id 26)))) (loop (+ i 1))))))
        ((vector? x) (all? (vector->list x)))
        ((bytevector? x)
         (let loop ((i 0))
           (or (= i (bytevector-length x))
               (and (= (bytevector-u8-ref x i) (modulo id 256)) (loop (+ i 1))))))
        ((number? x) (= x id))
        (else (all? x))))

(define size 64)
(define cache (make-hash-table equal?))

(define (forget-all)
  (hash-table-walk cache
    (lambda (key entry)
      (if (not (whole? (car entry) (cdr entry))) (error "an object is broken:" key entry))))
  (set! cache (make-hash-table equal?)))

(define hits 0)
(do ((i 0 (+ i 1)))
    ((= i steps))
  (let* ((key (list 'key (random size))) (old (hash-table-ref/default cache key #f)))
    (if old
        (begin
          (set! hits (+ hits 1))
          (if (not (whole? (car old) (cdr old))) (error "an object is broken:" key old))))
    (if (or (not old) (= 0 (random 4)))
        (hash-table-set! cache key (cons i (make-object i)))
        (make-object i))
    (if (= 0 (random 500)) (forget-all))))

(forget-all)
(if (< (* 2 hits) steps) (error "the cache hardly ever had what was looked for:" hits))
(display "all objects were whole")
(newline)
