;; Trees of pairs: many that die at once, and one that lives as long as the program. The
;; argument is the depth.

(define (make-tree depth)
  (if (= depth 0)
      '()
      (cons (make-tree (- depth 1)) (make-tree (- depth 1)))))

(define (check tree)
  (if (null? tree) 1 (+ 1 (check (car tree)) (check (cdr tree)))))

(define max-depth
  (let ((args (cdr (command-line))))
    (if (pair? args) (string->number (car args)) 6)))

(define (report what depth count)
  (for-each display (list what " of depth " depth ": " count))
  (newline))

(report "stretch tree" (+ max-depth 1) (check (make-tree (+ max-depth 1))))

(define long-lived (make-tree max-depth))

(do ((depth 4 (+ depth 2)))
    ((> depth max-depth))
  (let ((n (expt 2 (- max-depth depth -4))))
    (do ((i 0 (+ i 1))
         (sum 0 (+ sum (check (make-tree depth)))))
        ((= i n) (report (string-append (number->string n) " trees") depth sum)))))

(report "long-lived tree" max-depth (check long-lived))
