;; The ways to place queens on a board so that none attacks another, by lists. The argument is the
;; size of the board.

(define n
  (let ((args (cdr (command-line))))
    (if (pair? args) (string->number (car args)) 7)))

(define (iota1 n)
  (let loop ((i n) (l '()))
    (if (= i 0) l (loop (- i 1) (cons i l)))))

(define (safe? row distance placed)
  (or (null? placed)
      (and (not (= (car placed) (+ row distance)))
           (not (= (car placed) (- row distance)))
           (safe? row (+ distance 1) (cdr placed)))))

(define (try rows left placed)
  (if (null? rows)
      (if (null? left) 1 0)
      (+ (if (safe? (car rows) 1 placed)
             (try (append left (cdr rows)) '() (cons (car rows) placed))
             0)
         (try (cdr rows) (cons (car rows) left) placed))))

(display n)
(display " queens: ")
(display (try (iota1 n) '() '()))
(newline)
