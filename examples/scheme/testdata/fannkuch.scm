;; The most reversals of a prefix that it takes to bring a 1 to the front, over all permutations of 1 to n:
;; vectors, changed in place. The argument is n.

(define n
  (let ((args (cdr (command-line))))
    (if (pair? args) (string->number (car args)) 6)))

(define (reverse-prefix! v k)
  (do ((i 0 (+ i 1))
       (j (- k 1) (- j 1)))
      ((>= i j))
    (let ((x (vector-ref v i)))
      (vector-set! v i (vector-ref v j))
      (vector-set! v j x))))

(define (flips permutation)
  (let ((v (vector-copy permutation)))
    (let loop ((count 0))
      (let ((first (vector-ref v 0)))
        (if (= first 1)
            count
            (begin
              (reverse-prefix! v first)
              (loop (+ count 1))))))))

;; Calls f with each permutation of the first k elements of v.
(define (permute v k f)
  (if (= k 1)
      (f v)
      (do ((i 0 (+ i 1)))
          ((= i k))
        (permute v (- k 1) f)
        (let* ((j (if (even? k) i 0)) (x (vector-ref v j)))
          (vector-set! v j (vector-ref v (- k 1)))
          (vector-set! v (- k 1) x)))))

(define most 0)
(define count 0)
(permute (list->vector (let loop ((i n) (l '())) (if (= i 0) l (loop (- i 1) (cons i l)))))
         n
         (lambda (v)
           (set! count (+ count 1))
           (set! most (max most (flips v)))))

(for-each display (list "of " count " permutations of " n ", the slowest takes " most " flips"))
(newline)
